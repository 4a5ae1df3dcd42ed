import { Meter } from "../../components/Meter";
import { size } from "../../format";
import { used } from "../../texts/en/common";
import { system as t } from "../../texts/en/system";
import type { Report } from "./types";

/** How much of each device's memory, and of each disk, is taken. */
export function Room({ report }: { readonly report: Report }) {
  const { machine, disks } = report;
  return (
    <section class="system-card" aria-labelledby="system-memory">
      <h2 id="system-memory">{t.memory}</h2>
      {machine === null && <p class="soft">{t.lookingAtMachine}</p>}
      {machine?.problem && <p class="note warn">{machine.problem}</p>}
      <ul class="system-room">
        {machine?.devices.map((one) => (
          <Taken
            key={one.name}
            name={one.description === one.name ? one.name : `${one.name}, ${one.description}`}
            label={t.memoryOf(one.name)}
            free={one.free}
            total={one.total}
            more={t.forModels(size(one.for_models))}
          />
        ))}
      </ul>
      <h2>{t.disks}</h2>
      <ul class="system-room">
        {disks.map((one) => (
          <Taken
            key={one.name}
            name={t.diskNames[one.name] ?? one.name}
            label={t.diskOf(t.diskNames[one.name] ?? one.name)}
            free={one.free}
            total={one.total}
          />
        ))}
      </ul>
    </section>
  );
}

interface TakenProps {
  readonly name: string;
  readonly label: string;
  readonly free: number | null;
  readonly total: number | null;
  readonly more?: string;
}

function Taken({ name, label, free, total, more }: TakenProps) {
  const known = free !== null && total !== null;
  const text = known ? used(total - free, total) : t.unknownDisk;
  return (
    <li>
      <p>
        {name} <span class="soft">{[text, more].filter(Boolean).join(", ")}</span>
      </p>
      {known && <Meter label={label} value={total - free} max={total} text={text} />}
    </li>
  );
}
