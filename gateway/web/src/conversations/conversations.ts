/** The conversations of this browser. */

import { box } from "../gateway/connection";
import { ConversationStore } from "./store";
import { Texts } from "./texts";

export const store = new ConversationStore(() => box.value?.address ?? "");
export const texts = new Texts(store);
