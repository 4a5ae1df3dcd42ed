import { expect, test } from "vitest";
import { changed, created, fieldsOf, type Key } from "./fields";

const KEY: Key = {
  id: "k_1",
  name: "laptop",
  description: "",
  admin: false,
  metrics: false,
  state: "ok",
  created: "2026-11-26T18:32:22Z",
  expires: "2026-12-26T18:32:22Z",
  revoked: null,
  lastActivity: null,
  models: ["a", "b"],
  personalities: null,
  defaultPersonality: null,
  limits: { rpm: 60 },
};

test("a new key says no more than was filled in", () => {
  expect(created({ ...fieldsOf(null), name: " laptop " })).toEqual({ name: "laptop" });
});

test("a new key with everything", () => {
  const fields = {
    ...fieldsOf(null),
    name: "n",
    description: "d",
    admin: true,
    expiry: "30d",
    models: ["a"],
    personalities: [],
    limits: { ...fieldsOf(null).limits, tpd: "200000" },
  };
  expect(created(fields)).toEqual({
    name: "n",
    description: "d",
    admin: true,
    expires: "30d",
    models: ["a"],
    personalities: [],
    limits: { tpd: 200000 },
  });
});

test("a key for metrics", () => {
  expect(created({ ...fieldsOf(null), name: "n", metrics: true })).toEqual({
    name: "n",
    metrics: true,
  });
  const before = { ...KEY, metrics: true };
  expect(changed(before, { ...fieldsOf(before), metrics: false })).toEqual({ metrics: false });
});

test("a change holds only what is another now", () => {
  const fields = fieldsOf(KEY);
  expect(changed(KEY, fields)).toEqual({});
  expect(changed(KEY, { ...fields, models: ["b", "a"] })).toEqual({});
  expect(changed(KEY, { ...fields, expiry: "never", models: null })).toEqual({
    expires: null,
    models: null,
  });
  expect(changed(KEY, { ...fields, limits: { ...fields.limits, rpm: "", tpm: "5" } })).toEqual({
    limits: { rpm: null, tpm: 5 },
  });
});

test("a day counts to its end where the person is", () => {
  const body = changed(KEY, { ...fieldsOf(KEY), expiry: "date", date: "2030-12-31" });
  expect(new Date(String(body["expires"])).getHours()).toBe(23);
});
