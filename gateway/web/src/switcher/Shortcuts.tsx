import { Dialog } from "../components/Dialog";
import { shortcuts as t } from "../texts/en/switcher";
import { apple, panel } from "./shortcuts";
import "./switcher.css";

/** Which keys do what. */
export default function Shortcuts() {
  return (
    <Dialog title={t.title} onClose={() => void (panel.value = null)}>
      {t.groups.map(({ title, keys }) => (
        <section key={title} class="shortcuts">
          <h3>{title}</h3>
          <dl>
            {keys.map(({ keys: some, words }) => (
              <div key={words}>
                <dt>{words}</dt>
                <dd>
                  {some.map((one) => (
                    <kbd key={one}>{apple ? one.replace("Ctrl", "⌘") : one}</kbd>
                  ))}
                </dd>
              </div>
            ))}
          </dl>
        </section>
      ))}
    </Dialog>
  );
}
