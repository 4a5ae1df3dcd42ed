/** What the open screen puts into a phone's top bar, right of its name: a picker, say. */

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";

/** `null`: the state of the model. A screen sets it in an effect, and clears it when it closes. */
export const topbar = signal<ComponentChildren | null>(null);
