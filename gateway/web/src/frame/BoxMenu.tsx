import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { Button } from "../components/Button";
import { Confirm, Dialog } from "../components/Dialog";
import { Icon } from "../components/Icon";
import { addBox, box, boxes } from "../gateway/connection";
import { adding, leaveBox, switchTo } from "../gateway/entrance";
import { actions } from "../texts/en/common";
import { frame as t } from "../texts/en/frame";
import { closeDrawer } from "./drawer";

/** "box name v": the boxes that are known, to switch, add, rename and remove. */
export function BoxMenu() {
  const list = useRef<HTMLDivElement>(null);
  const asks = useSignal<"name" | "removal" | null>(null);
  const current = box.value;
  if (!current) return null;
  const choose = (act: () => void): void => {
    list.current?.hidePopover();
    act();
  };
  return (
    <div class="box-menu">
      <button type="button" class="box-name" popovertarget="boxes" title={t.boxes}>
        <span>{current.name}</span> <Icon name="down" size={16} />
      </button>
      <div id="boxes" popover="auto" ref={list} role="group" aria-label={t.boxes}>
        {boxes.value.map((one) => (
          <button
            key={one.address}
            type="button"
            class="item"
            aria-current={one.address === current.address ? "true" : undefined}
            onClick={() =>
              choose(() => {
                if (one.address === current.address) return;
                closeDrawer();
                switchTo(one.address);
              })
            }
          >
            <span class="tick">
              {one.address === current.address && <Icon name="check" size={16} />}
            </span>
            <span>
              {one.name}
              <small>{one.address === "" ? location.host : one.address}</small>
            </span>
          </button>
        ))}
        <hr />
        <button
          type="button"
          class="item"
          onClick={() =>
            choose(() => {
              closeDrawer();
              adding.value = true;
            })
          }
        >
          <Icon name="plus" size={16} /> {t.addBox}
        </button>
        <button type="button" class="item" onClick={() => choose(() => (asks.value = "name"))}>
          <Icon name="edit" size={16} /> {t.renameBox}
        </button>
        {current.address !== "" && (
          <button type="button" class="item" onClick={() => choose(() => (asks.value = "removal"))}>
            <Icon name="trash" size={16} /> {t.removeBox}
          </button>
        )}
      </div>
      {asks.value === "name" && (
        <Rename
          name={current.name}
          onName={(name) => addBox({ address: current.address, name })}
          onClose={() => (asks.value = null)}
        />
      )}
      {asks.value === "removal" && (
        <Confirm
          title={t.removeTitle(current.name)}
          text={t.removeText}
          action={t.removeBox}
          onConfirm={() => {
            closeDrawer();
            leaveBox();
          }}
          onClose={() => (asks.value = null)}
        />
      )}
    </div>
  );
}

interface RenameProps {
  readonly name: string;
  readonly onName: (name: string) => void;
  readonly onClose: () => void;
}

function Rename({ name, onName, onClose }: RenameProps) {
  const text = useSignal(name);
  return (
    <Dialog title={t.renameTitle(name)} onClose={onClose}>
      <form
        class="field"
        onSubmit={(event) => {
          event.preventDefault();
          if (text.value.trim() === "") return;
          onName(text.value.trim());
          onClose();
        }}
      >
        <label for="box-name">{t.name}</label>
        <input
          id="box-name"
          class="input"
          autoComplete="off"
          required
          value={text}
          onInput={(event) => (text.value = event.currentTarget.value)}
        />
        <div class="actions">
          <Button onClick={onClose}>{actions.cancel}</Button>
          <Button kind="primary" type="submit">
            {t.rename}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
