/** All there is to go to, and to do. */

import { store } from "../conversations/conversations";
import { openConversation, openNewConversation } from "../conversations/route";
import { search, type Text } from "../conversations/search";
import type { ConversationId } from "../conversations/types";
import { signOut } from "../gateway/entrance";
import { models, role } from "../gateway/live";
import { allowedScreens } from "../frame/screens";
import { go, href, route } from "../router";
import { screens as names } from "../texts/en/common";
import { conversations as c } from "../texts/en/conversations";
import { frame as f } from "../texts/en/frame";
import { switcher as t } from "../texts/en/switcher";
import { theme, type Theme } from "../theme";
import { score } from "./fuzzy";
import { panel } from "./shortcuts";

export interface Entry {
  readonly key: string;
  readonly kind: keyof typeof t.kinds;
  readonly words: string;
  readonly run: () => void;
}

const THEMES: readonly Theme[] = ["system", "light", "dark"];

function screensAndActions(): readonly Entry[] {
  return [
    { key: "new", kind: "action", words: t.newChat, run: openNewConversation },
    ...allowedScreens(role.value).map((one): Entry => {
      return { key: one, kind: "screen", words: names[one], run: () => go(href(one)) };
    }),
    ...THEMES.filter((one) => one !== theme.value).map((one): Entry => {
      const words = t.theme(f.themes[one]);
      return { key: `theme ${one}`, kind: "action", words, run: () => void (theme.value = one) };
    }),
    {
      key: "shortcuts",
      kind: "action",
      words: t.shortcuts,
      run: () => void (panel.value = "shortcuts"),
    },
    { key: "sign out", kind: "action", words: f.signOut, run: signOut },
  ];
}

function modelsAndPersonalities(): readonly Entry[] {
  return (models.value ?? [])
    .filter(({ capabilities: can }) => !can || can.length === 0 || can.includes("chat"))
    .map(({ id, parent, personality, name: called }): Entry => {
      if (parent === undefined) {
        const words = called === undefined ? id : `${called} (${id})`;
        return { key: id, kind: "model", words, run: () => chatWith(id, null) };
      }
      const name = personality ?? id.slice(parent.length + 1);
      const run = (): void => chatWith(parent, name);
      return { key: id, kind: "personality", words: t.of(name, parent), run };
    });
}

/** In the conversation that is open, or in a new one. */
function chatWith(model: string, personality: string | null): void {
  const opened = store.opened.peek();
  if (opened !== null && route.peek().screen === "chat") {
    store.change(opened.conversation.id, { model, personality });
  } else {
    store.openNew({ model, personality });
    go(href("chat"));
  }
}

/** So many conversations at most; the list beside the chat shows all. */
const CONVERSATIONS = 20;
const RECENT = 5;

/** What answers `query`, best first: all but old conversations and models if it is empty. */
export function entriesFor(
  query: string,
  texts: ReadonlyMap<ConversationId, Text>,
): readonly Entry[] {
  const wanted = query.trim();
  const hits =
    wanted === ""
      ? store.list.value.slice(0, RECENT)
      : search(wanted, store.list.value, texts).map((one) => one.conversation);
  const conversations = hits.slice(0, CONVERSATIONS).map(({ id, title }): Entry => {
    const words = title || c.untitled;
    return { key: `c ${id}`, kind: "conversation", words, run: () => openConversation(id) };
  });
  if (wanted === "") return [...screensAndActions(), ...conversations];
  const scored = [...screensAndActions(), ...modelsAndPersonalities()]
    .map((entry) => ({ entry, points: score(wanted, entry.words) }))
    .filter(({ points }) => points !== null)
    .sort((a, b) => (b.points ?? 0) - (a.points ?? 0))
    .map(({ entry }) => entry);
  return [...scored, ...conversations];
}
