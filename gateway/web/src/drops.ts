/** A file that is dropped beside what takes it would be opened by the browser, in place of the page. */

/** Whether files are dragged, and no text. */
export function hasFiles(event: DragEvent): boolean {
  return event.dataTransfer?.types.includes("Files") === true;
}

/** Keep the page. What takes files says so after this, in a listener of its own. */
export function watchDrops(): void {
  const refuse = (event: DragEvent): void => {
    if (!hasFiles(event) || event.defaultPrevented || takesFiles(event.target)) return;
    event.preventDefault();
    if (event.dataTransfer) event.dataTransfer.dropEffect = "none";
  };
  addEventListener("dragover", refuse);
  addEventListener("drop", refuse);
}

function takesFiles(target: EventTarget | null): boolean {
  return target instanceof HTMLInputElement && target.type === "file" && !target.disabled;
}
