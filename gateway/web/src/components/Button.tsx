import type { ButtonHTMLAttributes, ComponentChildren } from "preact";

interface Props extends Omit<
  ButtonHTMLAttributes<HTMLButtonElement>,
  "type" | "disabled" | "label"
> {
  readonly kind?: "primary" | "danger" | "plain" | undefined;
  /** Shows an icon alone; `label` names it. */
  readonly label?: string | undefined;
  readonly type?: "button" | "submit" | undefined;
  readonly disabled?: boolean | undefined;
  readonly children?: ComponentChildren;
}

/** A button that says what happens: "Unload", not "OK". */
export function Button({ kind, label, type = "button", class: more, children, ...rest }: Props) {
  const names = ["button", kind, label !== undefined && "icon", more].filter(Boolean).join(" ");
  return (
    <button
      {...rest}
      {...(label !== undefined && { "aria-label": label, title: label })}
      type={type}
      class={names}
    >
      {children}
    </button>
  );
}
