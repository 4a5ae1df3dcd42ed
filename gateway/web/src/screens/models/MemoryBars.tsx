import { withCode } from "../../components/withCode";
import { size } from "../../format";
import { overview } from "../../gateway/live";
import { href } from "../../router";
import { used } from "../../texts/en/common";
import { models as t } from "../../texts/en/models";
import { liveModels } from "./facts";
import { type Part, partsOf } from "./memory";

const SERIES = 4;

/** A bar for each device: what each model takes, what others do, what is free. */
export function MemoryBars() {
  const machine = overview.value?.machine;
  if (!machine) return <p class="soft">{t.memory.unknown}</p>;
  return (
    <section class="model-memory" aria-label={t.memory.title}>
      {machine.problem !== null && <p class="note warn">{withCode(machine.problem)}</p>}
      {machine.devices.map((device) => {
        const parts = partsOf(device, liveModels());
        const people = device.description || device.name;
        return (
          <div key={device.name} class="device">
            <div class="device-head">
              <span>
                <strong>{people}</strong>
                {people !== device.name && <span class="soft"> {device.name}</span>}
              </span>
              <span class="soft">{used(device.total - device.free, device.total)}</span>
            </div>
            <div class="device-bar" role="img" aria-label={wordsOf(device.name, parts)}>
              {parts.map((part, index) => (
                <div
                  key={part.kind + part.name}
                  class={classOf(part, index)}
                  style={{ width: `${part.share}%` }}
                />
              ))}
            </div>
            <ul class="device-legend">
              {parts
                .filter((one) => one.kind !== "free")
                .map((part, index) => (
                  <li key={part.kind + part.name}>
                    <span class={`swatch ${classOf(part, index)}`} aria-hidden="true" />
                    {part.kind === "model" ? (
                      <a href={href("models", part.name)}>{part.name}</a>
                    ) : (
                      t.memory.others
                    )}{" "}
                    <span class="soft">{size(part.bytes)}</span>
                  </li>
                ))}
            </ul>
          </div>
        );
      })}
    </section>
  );
}

function classOf(part: Part, index: number): string {
  return part.kind === "model"
    ? `model-part series-${(index % SERIES) + 1}`
    : `model-part ${part.kind}`;
}

function wordsOf(device: string, parts: readonly Part[]): string {
  const words = parts.map((one) => {
    const name =
      one.kind === "model" ? one.name : one.kind === "others" ? t.memory.others : t.memory.freePart;
    return `${name} ${size(one.bytes)}`;
  });
  return `${t.memory.label(device)}: ${words.join(", ")}`;
}
