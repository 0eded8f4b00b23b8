export * from "./core/core.js";
