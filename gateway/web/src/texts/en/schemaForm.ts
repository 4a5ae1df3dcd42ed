/** Words of forms that are made from a JSON Schema. */

import type { Wrong } from "../../schema-form/schema";

export const schemaForm = {
  notSet: "by default",
  yes: "yes",
  no: "no",
  own: "(the model's own)",
  allowed: "Allowed:",
  usually: (value: string): string => `${value} by default`,
  secret: "Kept secret. Write another to replace it.",
  addPair: "Add",
  removePair: (key: string): string => `Take out ${key}`,
  pairKey: "Name",
  noPairs: "None.",
  putBack: "Put back",
  was: (before: string): string => (before === "" ? "It was not set." : `It was: ${before}`),
  notJson: (reason: string): string => `This is no JSON: ${reason}`,
  takeOut: "Take it out",
  wrong: (wrong: Wrong): string => {
    switch (wrong.what) {
      case "number":
        return "This must be a number.";
      case "whole":
        return "This must be a whole number.";
      case "pattern":
        return "This can't be read as such a value.";
      case "minimum":
        return `This must be ${wrong.bound} or more.`;
      case "maximum":
        return `This must be ${wrong.bound} or less.`;
    }
  },
} as const;
