/** Words of the screen "Chat". */

import { count, duration } from "../../format";
import { counted } from "./plural";

export const chat = {
  title: "Chat",
  newChat: "New chat",
  conversations: "Conversations",
  settings: "Settings of this conversation",
  messages: "Messages",
  you: "You",
  answer: "Answer",
  by: (model: string, personality: string | undefined): string =>
    personality === undefined || personality === "none" ? model : `${model} · ${personality}`,

  model: "Model",
  personality: "Personality",
  noPersonality: "No personality",
  chooseModel: "Choose a model",
  chooseFirst: "Choose a model to go on",
  more: "Conversations and settings",
  find: "Find",
  nothingFound: "Nothing is called that",
  gone: "not here any more",
  takes: (memory: string): string => `takes ${memory}`,
  about: (memory: string): string => `about ${memory}`,
  holds: (memory: string): string => `holds ${memory}`,
  weighs: (size: string): string => `${size} of weights`,
  context: (tokens: number): string => `${count(tokens)} tokens of context`,

  message: "Message",
  placeholder: (model: string): string => `Ask ${model}`,
  send: "Send",
  stop: "Stop",
  hint: "Enter sends, Shift+Enter begins a new line",
  addPictures: "Add pictures",
  takePicture: "Take a picture",
  removePicture: (number: number): string => `Remove picture ${number}`,
  picture: (number: number): string => `Picture ${number}`,
  openPicture: (number: number): string => `Show picture ${number} as a whole`,
  noPicture: (name: string): string =>
    `${name || "This file"} is no picture that this browser can read.`,
  lostPicture:
    "The browser can't read a picture of this conversation any more. Add it again in a new chat.",
  notTaken: (name: string): string =>
    `${name} is no picture. Only pictures can be added to a question.`,
  tooMany: (most: number): string => `A question can have ${most} pictures.`,
  noEyes: (model: string): string => `${model} can't see pictures. Choose a model that can.`,
  dropHere: "Drop pictures here",

  copy: "Copy",
  copyCode: "Copy this code",
  code: (language: string): string => (language ? `Code in ${language}` : "Code"),
  edit: "Edit and ask again",
  askAgain: "Ask again",
  again: "Answer again",
  goOn: "Go on",
  tryAgain: "Try again",
  cancel: "Cancel",
  earlier: "Version before",
  later: "Version after",
  version: (index: number, of: number): string => `${index}/${of}`,
  toEnd: "Jump to the end",

  thinking: "Thinking",
  thought: "Thought",
  thoughtFor: (seconds: number): string =>
    seconds < 0.05 ? "Thought" : `Thought for ${duration(seconds)}`,
  calls: (name: string): string => `Calls ${name}`,
  noArguments: "without arguments",

  stages: {
    sent: "Asking",
    waiting: (position: number, of: number): string =>
      of > 1 ? `Waiting, ${position} of ${of} in the queue` : "Waiting for its turn",
    loading: (model: string, percent: number | null): string =>
      percent === null ? `Loading ${model}` : `Loading ${model}, ${Math.round(percent)}%`,
    reading: (percent: number): string => `Reading the prompt, ${Math.round(percent)}%`,
    thinking: "Thinking",
    writing: "Writing",
    reconnecting: "The connection broke, going on",
    elsewhere: "Another tab is writing this",
  },
  seconds: (seconds: number): string => `${Math.floor(seconds)} s`,

  firstWord: (seconds: number): string => `${duration(seconds)} to first word`,
  firstToken: (seconds: number): string => `first token in ${duration(seconds)}`,
  wordsPerSecond: (words: number): string => `${count(words)} words/s`,
  tokensPerSecond: (tokens: number): string =>
    `${tokens < 10 ? tokens.toFixed(1) : count(tokens)} tokens/s`,
  tokens: (tokens: number): string => counted(tokens, "token", "tokens"),
  prompt: (tokens: number, cached: number): string => {
    const all = counted(tokens, "prompt token", "prompt tokens");
    return cached === 0 ? all : `${count(cached)} of ${all} cached`;
  },
  onThisBox: "here, on this box",

  stopped: "Stopped",
  reachedLimit: "It reached its limit of tokens.",
  filtered: "The server's filter ended it.",
  cut: "The connection broke before the answer was whole.",
  lost: "The gateway no longer has the rest of this answer: it keeps one for a while only, and none when it restarts.",
  unfinished: "The page was closed while this was being written.",
  cantGoOn: "The model can't go on with a begun answer like this one, but it can answer again.",
  unreachable: "The gateway can't be reached. Is it running, and this device in its network?",
  back: "The gateway was out of reach, and is back.",
  empty: "The model said nothing.",
  seeLog: "See the model's log",
  request: "Request",
  copyId: "Copy the request id",

  missing: "This conversation isn't in this browser",
  missingText:
    "It was deleted, or it was had in another browser: conversations are kept where they were had.",
  opening: "Opening the conversation",
  unopened: "This conversation could not be opened",
  unopenedText: "The browser could not read it. If it fails again, reload the page.",

  noModels: "No model yet",
  noModelsAdmin: "Add one from the files on this box, or fetch one from the hub.",
  toModels: "Go to Models",
  noModelsUser: "Whoever runs this box can add a model, or allow this key to use one.",
  loadingModels: "Looking for models",

  useIt: "Use it from your app",
  useItHint: "The same answers in your own programs:",
  closeUseIt: "Don't show this again",

  greeting: "What would you like to know?",
  greetingBy: (personality: string): string => `Ask the ${personality}`,
  tryThese: "Questions to try",
} as const;

type Three = readonly [string, string, string];

/** Questions to try, by what a personality's name says of it. */
export const questions: readonly { readonly of: RegExp; readonly three: Three }[] = [
  {
    of: /geograph|travel|guide/i,
    three: [
      "Why does the Nile flow north?",
      "Which three countries would you show a friend first, and why?",
      "Make a table of the five longest rivers.",
    ],
  },
  {
    of: /histor/i,
    three: [
      "What did people eat in ancient Rome?",
      "Tell me of an invention that changed everyday life.",
      "Make a timeline of the 19th century in ten lines.",
    ],
  },
  {
    of: /program|cod(e|er|ing)|develop|engineer|linux|admin|sql|python/i,
    three: [
      "Write a Python function that finds duplicate files in a folder.",
      "Explain what a race condition is, with an example.",
      "Which shell command shows what fills my disk?",
    ],
  },
  {
    of: /translat|language|english|french|german|spanish/i,
    three: [
      "Translate “The early bird catches the worm”, and explain it.",
      "How do I order a coffee politely?",
      "Which mistakes do learners make most often?",
    ],
  },
  {
    of: /math|physic|chem|biolog|scien|teacher|tutor|professor/i,
    three: [
      "Explain to me why the sky is blue.",
      "Ask me three questions about what I should know, and check my answers.",
      "What is the most common mistake beginners make?",
    ],
  },
  {
    of: /cook|chef|food|kitchen|recipe/i,
    three: [
      "What can I make of eggs, rice and a tomato?",
      "Plan three quick dinners, with a shopping list.",
      "How do I know that oil is hot enough?",
    ],
  },
  {
    of: /doctor|nurse|health|fitness|coach|trainer/i,
    three: [
      "How do I begin to run without hurting myself?",
      "What helps to fall asleep?",
      "Make a plan for ten minutes of exercise a day.",
    ],
  },
  {
    of: /poet|writ(er|ing)|author|editor|story|novel|bard/i,
    three: [
      "Write four lines about rain on a tin roof.",
      "Give me three beginnings for a short story.",
      "Make this sentence better: “It was a nice day and we did things.”",
    ],
  },
  {
    of: /pirate|wizard|robot|knight|detective|alien/i,
    three: [
      "Who are you?",
      "Tell me of your greatest adventure.",
      "What do you do on a rainy day?",
    ],
  },
];

export const anybody: Three = [
  "Who are you, and what can I ask you?",
  "What do people ask you most often?",
  "Tell me something that few people know.",
];

export const withoutPersonality: Three = [
  "Explain in three sentences how a rainbow comes about.",
  "Write a Python function that says whether a word is a palindrome.",
  "Compare tea and coffee in a table.",
];

export const ofCode: Three = [
  "Write a Python function that says whether a word is a palindrome.",
  "Explain what a race condition is, with an example.",
  "Write a regular expression for dates like 2026-11-26.",
];
