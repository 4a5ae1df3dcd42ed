/** The operations, rendered by Swagger UI: fetched when the page is there already. */

import { render } from "preact";
import SwaggerUI, {
  type Component,
  type Plugin,
  type System,
} from "swagger-ui-dist/swagger-ui-es-bundle.js";
import "swagger-ui-dist/swagger-ui.css";
import { key } from "../gateway/connection";
import { docs as t } from "../texts/en/docs";
import { operation, type ApiDocument, type Entry } from "./document";
import { Samples } from "./Samples";
import "./swagger.css";

/** Groups that few look for: closed at first. */
const CLOSED = ["Other addresses", "Refused"];

export interface Operations {
  /** Open an operation, and scroll to it. */
  show(entry: Entry): void;
}

/** Render `document` into `place`. `onNoKey`: something is tried out, and there is no key. */
export function operations(
  place: Element,
  document: ApiDocument,
  onNoKey: () => void,
): Promise<Operations> {
  return new Promise((resolve) => {
    const ui: System = SwaggerUI({
      domNode: place,
      spec: document,
      plugins: [pluginFor(document)],
      requestInterceptor: (request) => {
        if (key.value !== null) request.headers["Authorization"] = `Bearer ${key.value}`;
        else onNoKey();
        return request;
      },
      onComplete: () => {
        for (const tag of CLOSED) ui.layoutActions.show(["operations-tag", tag], false);
        resolve({ show: (entry) => show(ui, entry) });
      },
      validatorUrl: null, // it would be somebody else's server
      deepLinking: true,
      docExpansion: "list",
      defaultModelsExpandDepth: -1,
      defaultModelRendering: "example",
      displayRequestDuration: true,
      queryConfigEnabled: false,
      syntaxHighlight: { activated: false },
    });
  });
}

function show(ui: System, { tag, id }: Entry): void {
  ui.layoutActions.show(["operations-tag", tag], true);
  ui.layoutActions.show(["operations", tag, id], true);
  requestAnimationFrame(() => {
    const found = window.document.querySelector(`.opblock[id$="-${CSS.escape(id)}"]`);
    found?.scrollIntoView();
    found?.querySelector<HTMLElement>(".opblock-summary-control")?.focus({ preventScroll: true });
  });
}

/** A field with its parameter's name, which stands in another cell of the table. */
function labelled(original: Component, { React }: System): Component {
  return function LabelledField(props) {
    const name = String(props["description"] ?? t.value);
    return React.createElement(
      "label",
      null,
      React.createElement("span", { className: "visually-hidden" }, name),
      React.createElement(original, props),
    );
  };
}

function pluginFor(document: ApiDocument): Plugin {
  const nothing = (): (() => null) => () => null;
  return {
    wrapComponents: {
      // The page has a field for the key, in place of these.
      authorizeBtn: nothing,
      authorizeOperationBtn: nothing,
      // There is one server: the gateway this page came from.
      ServersContainer: nothing,
      // That of an operation is within its button: the contents link to the same.
      DeepLink: (original, { React }) =>
        function DeepLinkOfGroup(props) {
          const enabled = props["enabled"] === true && !String(props["path"]).includes("/");
          return React.createElement(original, { ...props, enabled });
        },
      // What is wider than its frame is scrolled by keyboard, too.
      PlainTextViewer: (_original, { React }) =>
        function FocusablePlainText({ className, children }) {
          const classes = ["microlight", className].filter(Boolean).join(" ");
          const frame = { className: classes, tabIndex: 0, role: "group", "aria-label": t.text };
          return React.createElement("pre", frame, children);
        },
      InfoContainer: (original, { React }) =>
        function InfoAsRegion(props) {
          const region = { "aria-label": t.about };
          return React.createElement("section", region, React.createElement(original, props));
        },
      // The outermost of a schema has no title, which would be its name.
      JSONSchema202012Accordion: (original, { React }) =>
        function NamedAccordion(props) {
          const name = React.createElement("span", { className: "visually-hidden" }, t.fields);
          return React.createElement(original, props, props["children"], name);
        },
      JsonSchema_string: labelled,
      JsonSchema_string_binary: labelled,
      JsonSchema_boolean: labelled,
      TextArea: (original, { React }) =>
        function NamedTextArea(props) {
          const isBody = String(props["className"]).includes("body-param__text");
          return React.createElement(original, {
            "aria-label": isBody ? t.requestBody : t.value,
            ...props,
          });
        },
      responses: (original, { React }) =>
        function ResponsesBelowCode(props) {
          const path = String(props["path"]);
          const method = String(props["method"]);
          const name = `${method.toUpperCase()} ${path}`;
          const samples = operation(document, path, method)?.["x-codeSamples"] ?? [];
          const mount = (node: Element | null): void => {
            if (node) render(<Samples of={name} samples={samples} />, node);
          };
          // A region without a name of its own, as that of every operation.
          const nameTable = (node: Element | null): void =>
            node?.querySelector(".responses-table")?.setAttribute("aria-label", t.responses(name));
          return React.createElement(
            "div",
            { ref: nameTable },
            React.createElement("div", { ref: mount }),
            React.createElement(original, props),
          );
        },
    },
    statePlugins: {
      spec: {
        wrapSelectors: {
          // A stream without an end would never be shown.
          allowTryItOutFor: () => (_state, path, method) =>
            operation(document, path, method)?.["x-endless"] !== true,
        },
      },
    },
  };
}
