/** What is read of GET /openapi.json, and what the page makes of it. Pure. */

export interface Sample {
  readonly lang: string;
  readonly label: string;
  readonly source: string;
}

export interface Operation {
  readonly operationId: string;
  readonly tags: readonly string[];
  readonly summary: string;
  readonly "x-scope": string;
  readonly "x-endless"?: boolean;
  readonly "x-codeSamples"?: readonly Sample[];
}

export interface ApiDocument {
  readonly info: { readonly title: string; readonly version: string };
  readonly tags: readonly { readonly name: string; readonly description: string }[];
  readonly servers: readonly { readonly url: string }[];
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
}

/** What stands for the gateway's address in code. */
const BASE = "http://127.0.0.1:8080";

/** The document for a gateway at `origin`: its address in servers and in all code. */
export function at(document: ApiDocument, origin: string): ApiDocument {
  const paths = Object.entries(document.paths).map(([path, operations]) => [
    path,
    Object.fromEntries(
      Object.entries(operations).map(([method, one]) => [
        method,
        {
          ...one,
          "x-codeSamples": one["x-codeSamples"]?.map((sample) => ({
            ...sample,
            source: sample.source.replaceAll(BASE, origin),
          })),
        },
      ]),
    ),
  ]);
  return { ...document, servers: [{ url: origin }], paths: Object.fromEntries(paths) };
}

export interface Entry {
  readonly method: string;
  readonly path: string;
  readonly id: string;
  readonly tag: string;
  readonly summary: string;
}

export interface Group {
  readonly name: string;
  readonly entries: readonly Entry[];
}

/** Groups in the document's order, with the operations that have all words of `wanted`. */
export function contents(document: ApiDocument, wanted = ""): readonly Group[] {
  const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
  const entries = Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, one]) => ({
      method: method.toUpperCase(),
      path,
      id: one.operationId,
      tag: one.tags[0] ?? "",
      summary: one.summary,
    })),
  );
  const found = entries.filter((one) => {
    const text = `${one.method} ${one.path} ${one.summary} ${one.tag}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  return document.tags
    .map(({ name }) => ({ name, entries: found.filter((one) => one.tag === name) }))
    .filter((group) => group.entries.length > 0);
}

/** One operation, or `undefined`. */
export function operation(
  document: ApiDocument,
  path: string,
  method: string,
): Operation | undefined {
  return document.paths[path]?.[method.toLowerCase()];
}
