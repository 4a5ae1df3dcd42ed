import { Button } from "../components/Button";
import { Meter } from "../components/Meter";
import { State } from "../components/State";
import { size } from "../format";
import { signOut } from "../gateway/entrance";
import { key } from "../gateway/connection";
import { overview, status } from "../gateway/live";
import { href } from "../router";
import { theme, type Theme } from "../theme";
import { frame as t } from "../texts/en/frame";
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
          <State state="loading" percent={one.percent} words={one.model} />
        </div>
      ))}
      {seen?.machine?.devices.map((device) => {
        const used = device.total - device.free;
        return (
          <a
            key={device.name}
            class="memory"
            href={href("models")}
            title={t.used(size(used), size(device.total))}
          >
            <span>{device.name}</span>
            <span class="tabular">{`${gib(used)}/${gib(device.total)} GiB`}</span>
            <Meter
              label={t.memory(device.name)}
              value={used}
              max={device.total}
              text={t.used(size(used), size(device.total))}
            />
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
