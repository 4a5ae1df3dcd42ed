/** The title of a conversation, made from its first question. Pure. */

const LONGEST = 60;

/**
 * The first words of a question, at most 60 characters, cut between words.
 *
 * Code fences, marks of headings and quotes go; "" if nothing is left.
 */
export function titleFrom(question: string): string {
  const line =
    question
      .replace(/```[^\n]*\n?/g, "\n")
      .split("\n")
      .map((one) =>
        one
          .replace(/^[\s#>*-]+/, "")
          .replace(/[*_`]+/g, "")
          .replace(/\s+/g, " ")
          .trim(),
      )
      .find((one) => one !== "") ?? "";
  return shortened(line, LONGEST);
}

/** `text` in at most `longest` characters as people count them, cut between words if it can be. */
export function shortened(text: string, longest: number): string {
  const characters = Array.from(text);
  if (characters.length <= longest) return text;
  const cut = characters.slice(0, longest - 1).join("");
  const space = cut.lastIndexOf(" ");
  return `${(space > longest / 2 ? cut.slice(0, space) : cut).replace(/[\s,;:.]+$/, "")}…`;
}
