import { Button } from "../../components/Button";
import { differences, type Json, type JsonObject, valueAt } from "../../schema-form/json";
import { modelEntry } from "../../texts/en/modelEntry";

const t = modelEntry.notYours;

interface Props {
  readonly before: JsonObject;
  readonly mine: JsonObject;
  readonly theirs: JsonObject;
  readonly onMine: () => void;
  readonly onTheirs: () => void;
}

/** What somebody else changed while this form was open, and how to go on. */
export function Conflict({ before, mine, theirs, onMine, onTheirs }: Props) {
  const rows = differences(before, theirs);
  return (
    <div class="note warn" role="alert">
      <h2>{t.title}</h2>
      <div class="table-frame" tabIndex={0} role="region" aria-label={t.title}>
        <table class="table conflict">
          <thead>
            <tr>
              <th scope="col">{t.key}</th>
              <th scope="col">{t.before}</th>
              <th scope="col">{t.now}</th>
              <th scope="col">{t.yours}</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.path.join(".")}>
                <th scope="row">
                  <code>{row.path.join(".")}</code>
                </th>
                <td>{wordsOf(row.before)}</td>
                <td>{wordsOf(row.after)}</td>
                <td>{wordsOf(valueAt(mine, row.path))}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <div class="save-buttons">
        <Button onClick={onTheirs}>{t.theirs}</Button>
        <Button kind="primary" onClick={onMine}>
          {t.mine}
        </Button>
      </div>
    </div>
  );
}

function wordsOf(value: Json | undefined): string {
  if (value === undefined) return t.none;
  return typeof value === "string" ? value : JSON.stringify(value);
}
