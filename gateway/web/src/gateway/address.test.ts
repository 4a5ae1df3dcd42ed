import { describe, expect, it } from "vitest";
import { isLocal, isLoopback, readAddress } from "./address";

const read = (text: string): string => {
  const found = readAddress(text);
  return typeof found === "string" ? found : found.address;
};

describe("the address of a box", () => {
  it.each([
    ["box.example", "https://box.example"],
    ["  https://box.example:8443  ", "https://box.example:8443"],
    ["https://box.example:8443/v1", "https://box.example:8443"],
    ["box.lan:8080/v1/", "https://box.lan:8080"],
    ["http://192.168.1.5:8080", "http://192.168.1.5:8080"],
    ["localhost:8080", "http://localhost:8080"],
    ["127.0.0.1:8080", "http://127.0.0.1:8080"],
    ["[::1]:8080", "http://[::1]:8080"],
    ["HTTPS://Box.Example:443/", "https://box.example"],
    ["https://box:8443/?x=1#/chat", "https://box:8443"],
  ])("%j is %s", (text, address) => expect(read(text)).toBe(address));

  it.each([
    ["", "empty"],
    ["   ", "empty"],
    ["ftp://box", "scheme"],
    ["https://", "malformed"],
    ["my box", "malformed"],
    ["https://me:secret@box", "malformed"],
    ["box:99999", "malformed"],
  ])("%j is none: %s", (text, problem) => expect(read(text)).toBe(problem));

  it("takes the key out of a pasted link, and says what it left out", () => {
    expect(readAddress("https://box:8443/#key=llmgw_a%2Bb")).toMatchObject({ key: "llmgw_a+b" });
    expect(readAddress("https://box/#key=%E0%A4%A")).toMatchObject({ key: "%E0%A4%A" });
    expect(readAddress("box/v1")).toMatchObject({ path: "/v1", schemeAdded: true, key: null });
  });
});

describe("networks", () => {
  it.each(["localhost", "app.localhost", "127.0.0.1", "[::1]"])("%s is this machine", (host) =>
    expect(isLoopback(host)).toBe(true),
  );
  it.each(["10.1.2.3", "172.16.0.1", "192.168.1.5", "[fd00::1]", "[fe80::1]", "box", "box.local"])(
    "%s is at home",
    (host) => expect([isLocal(host), isLoopback(host)]).toEqual([true, false]),
  );
  it.each(["box.example", "172.32.0.1", "8.8.8.8", "[2001:db8::1]", "127.example"])(
    "%s is somewhere",
    (host) => expect(isLocal(host)).toBe(false),
  );
});
