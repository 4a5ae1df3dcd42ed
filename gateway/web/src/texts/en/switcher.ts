/** Words of the switcher (Ctrl-K) and of the help for the keyboard. */

import { count } from "../../format";

export const switcher = {
  title: "Go to",
  open: "Go to…",
  find: "Screen, conversation, model or action",
  results: "What there is to go to",
  found: (number: number): string => (number === 0 ? "Nothing found" : `${count(number)} found`),
  nothing: (query: string): string => `Nothing is called “${query}”, and nobody said it.`,
  kinds: {
    screen: "Screen",
    action: "Action",
    model: "Chat with",
    personality: "Personality",
    conversation: "Conversation",
  },
  newChat: "New chat",
  theme: (name: string): string => `Theme: ${name}`,
  shortcuts: "Keyboard shortcuts",
  of: (personality: string, model: string): string => `${personality} (${model})`,
} as const;

export const shortcuts = {
  title: "Keyboard shortcuts",
  groups: [
    {
      title: "Everywhere",
      keys: [
        { keys: ["Ctrl K", "/"], words: "Go to a screen, conversation, model or action" },
        { keys: ["?"], words: "These shortcuts" },
        { keys: ["Esc"], words: "Close what is open" },
      ],
    },
    {
      title: "Writing",
      keys: [
        { keys: ["Enter"], words: "Send" },
        { keys: ["Shift Enter"], words: "A new line" },
      ],
    },
    {
      title: "In the list of conversations",
      keys: [
        { keys: ["↑", "↓", "Home", "End"], words: "Move" },
        { keys: ["Enter"], words: "Open" },
        { keys: ["F2"], words: "Rename" },
        { keys: ["Delete"], words: "Delete; “Undo” brings it back" },
      ],
    },
  ],
} as const;
