import { Button } from "../components/Button";
import { Meter } from "../components/Meter";
import { State } from "../components/State";
import { signOut } from "../gateway/entrance";
import { key } from "../gateway/connection";
import { isLoading, overview, status } from "../gateway/live";
import { href } from "../router";
import { theme, type Theme } from "../theme";
import { used } from "../texts/en/common";
import { frame as t } from "../texts/en/frame";
import { calledBy, fullNameOf } from "./devices";
import { gib } from "./numbers";

/** Memory and what runs, always in sight; the theme, and the way out. */
export function Foot() {
  return (
    <div class="foot">
      <Running />
      <ThemePicker />
      {key.value !== null && (
        <Button kind="plain" onClick={signOut}>
          {t.signOut}
        </Button>
      )}
    </div>
  );
}

function Running() {
  const seen = overview.value;
  const waiting = status.value?.waiting ?? [];
  return (
    <>
      {waiting.map((one) => (
        <div key={one.model} class="loads">
          {isLoading(one) ? (
            <State state="loading" percent={one.percent} words={one.model} />
          ) : (
            <State state="waiting" words={t.waitFor(one.queued, one.model)} />
          )}
        </div>
      ))}
      {seen?.machine?.devices.map((device, _, all) => {
        const name = calledBy(all, device);
        const taken = device.total - device.free;
        const words = used(taken, device.total);
        return (
          <a
            key={device.name}
            class="memory"
            href={href("models")}
            title={`${fullNameOf(device)}: ${words}`}
          >
            <span>{name}</span>
            <span class="tabular">{t.used(gib(taken), gib(device.total))}</span>
            <Meter label={t.memory(name)} value={taken} max={device.total} text={words} />
          </a>
        );
      })}
      {seen && (
        <a class="running" href={href("activity")}>
          <span class={seen.in_flight > 0 ? "dot busy" : "dot"} aria-hidden="true" />
          {t.running(seen.in_flight)}
        </a>
      )}
    </>
  );
}

const THEMES: readonly Theme[] = ["system", "light", "dark"];

function ThemePicker() {
  return (
    <label class="theme">
      <span>{t.theme}</span>
      <select
        class="input"
        value={theme.value}
        onChange={(event) => {
          const chosen = THEMES.find((one) => one === event.currentTarget.value);
          if (chosen) theme.value = chosen;
        }}
      >
        {THEMES.map((one) => (
          <option key={one} value={one}>
            {t.themes[one]}
          </option>
        ))}
      </select>
    </label>
  );
}
