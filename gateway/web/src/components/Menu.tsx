import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { Button } from "./Button";

export interface MenuItem {
  readonly words: string;
  readonly run: () => void;
  readonly danger?: boolean;
}

interface Props {
  /** Names the button. */
  readonly label: string;
  readonly items: readonly MenuItem[];
  readonly tabIndex?: number;
  /** What the button shows. */
  readonly children: ComponentChildren;
}

/** A button that opens a list of actions: arrows move in it, Escape closes it. */
export function Menu({ label, items, tabIndex, children }: Props) {
  const open = useSignal(false);
  const place = useRef<HTMLSpanElement>(null);
  const id = useId();
  const close = (): void => {
    open.value = false;
    place.current?.querySelector("button")?.focus();
  };
  return (
    <span class="menu-place" ref={place}>
      <Button
        kind="plain"
        label={label}
        tabIndex={tabIndex}
        aria-haspopup="menu"
        aria-expanded={open.value}
        aria-controls={open.value ? id : undefined}
        onClick={() => (open.value = !open.value)}
      >
        {children}
      </Button>
      {open.value && <MenuList id={id} label={label} items={items} onClose={close} />}
    </span>
  );
}

interface ListProps {
  readonly id: string;
  readonly label: string;
  readonly items: readonly MenuItem[];
  readonly onClose: () => void;
}

function MenuList({ id, label, items, onClose }: ListProps) {
  const list = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = list.current;
    const button = element?.previousElementSibling;
    if (!element || !button) return;
    element.showPopover();
    placeBy(element, button.getBoundingClientRect());
    focusOn(element, 0);
    const outside = (event: Event): void => {
      if (event.target instanceof Node && !element.parentElement?.contains(event.target)) onClose();
    };
    addEventListener("pointerdown", outside, true);
    addEventListener("resize", onClose);
    return () => {
      removeEventListener("pointerdown", outside, true);
      removeEventListener("resize", onClose);
    };
  }, []);
  const onKeyDown = (event: KeyboardEvent): void => {
    const element = list.current;
    if (!element) return;
    const buttons = [...element.querySelectorAll("button")];
    const at = buttons.findIndex((one) => one === document.activeElement);
    const moves: Record<string, number> = {
      ArrowDown: at + 1,
      ArrowUp: at - 1,
      Home: 0,
      End: -1,
    };
    const to = moves[event.key];
    if (to !== undefined) focusOn(element, to);
    else if (event.key === "Escape" || event.key === "Tab") onClose();
    else return;
    event.preventDefault();
    event.stopPropagation(); // of what it stands in: a list with arrows of its own, a dialog
  };
  return (
    <div
      ref={list}
      id={id}
      class="menu"
      role="menu"
      aria-label={label}
      popover="manual"
      onKeyDown={onKeyDown}
    >
      {items.map(({ words, run, danger }) => (
        <button
          key={words}
          type="button"
          role="menuitem"
          tabIndex={-1}
          class={danger ? "danger" : undefined}
          onClick={() => {
            onClose();
            run();
          }}
        >
          {words}
        </button>
      ))}
    </div>
  );
}

function focusOn(list: HTMLElement, index: number): void {
  const buttons = list.querySelectorAll("button");
  buttons[(index + buttons.length) % buttons.length]?.focus();
}

/** Below the button and within the window, or above it where there is no room. */
function placeBy(menu: HTMLElement, button: DOMRect): void {
  const { offsetWidth: width, offsetHeight: height } = menu;
  const left = Math.min(button.left, innerWidth - width - 8);
  const below = button.bottom + 4;
  const top = below + height > innerHeight - 8 ? button.top - height - 4 : below;
  menu.style.left = `${Math.max(8, left)}px`;
  menu.style.top = `${Math.max(8, top)}px`;
}
