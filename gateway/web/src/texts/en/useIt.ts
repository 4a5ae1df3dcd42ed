/** Words of "Use it from your app". */

export const useIt = {
  title: "Use it from your app",
  client: "App",
  withKey: "Write my key into the lines",
  keyIn: (name: string): string => `The lines take the key from the variable ${name}.`,
  notes: "Good to know",
  documentation: "Its documentation",
  copyLines: "Copy the lines",
} as const;
