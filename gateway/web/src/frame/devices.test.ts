import { describe, expect, it } from "vitest";
import type { Device } from "../gateway/types";
import { calledBy, fullNameOf } from "./devices";

const device = (name: string, description = ""): Device => ({
  ...{ name, description, total: 8, free: 8, for_models: 8, left: 8 },
});
const called = (...devices: Device[]): string[] => devices.map((one) => calledBy(devices, one));

describe("a device", () => {
  it("is the GPU where there is one", () =>
    expect(called(device("CUDA0"), device("RAM"))).toEqual(["GPU", "RAM"]));

  it("has a number where there are several", () =>
    expect(called(device("RAM"), device("CUDA0"), device("Vulkan1"))).toEqual([
      ...["RAM", "GPU 0", "GPU 1"],
    ]));

  it("has its card's name in full", () => {
    expect(fullNameOf(device("CUDA0", "NVIDIA GeForce RTX 4090"))).toBe(
      "NVIDIA GeForce RTX 4090 (CUDA0)",
    );
    expect(fullNameOf(device("RAM"))).toBe("RAM");
  });
});
