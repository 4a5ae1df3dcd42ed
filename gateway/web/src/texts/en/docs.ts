/** Words of the page of the API, /docs. */

export const docs = {
  title: "API",
  product: "LLM-API Gateway",
  asJson: "openapi.json",
  contents: "Operations",
  find: "Find an operation",
  none: "No operation has this in its name or address.",
  keyLabel: "API key, for trying out",
  use: "Use key",
  forget: "Forget key",
  hasKey: "Trying out uses your key, which this tab keeps.",
  loading: "Loading the operations…",
  about: "About the API",
  code: "Code",
  codeOf: (operation: string): string => `Code of ${operation}`,
  codeIn: (operation: string, language: string): string => `${operation} in ${language}`,
  responses: (operation: string): string => `Responses of ${operation}`,
  languages: "Language",
  text: "Text",
  requestBody: "Request body",
  value: "Value",
} as const;
