/** What the page uses of Swagger UI, which has no types of its own. */
declare module "swagger-ui-dist/swagger-ui-es-bundle.js" {
  type Props = Readonly<Record<string, unknown>>;
  export type Component = (props: Props) => unknown;

  interface React {
    createElement(type: unknown, props?: unknown, ...children: unknown[]): unknown;
    Fragment: unknown;
  }

  export interface System {
    readonly React: React;
    readonly layoutActions: { show(what: readonly string[], open: boolean): void };
  }

  export interface Plugin {
    readonly wrapComponents?: Readonly<
      Record<string, (original: Component, system: System) => Component>
    >;
    readonly statePlugins?: {
      readonly spec: {
        readonly wrapSelectors: {
          readonly allowTryItOutFor: () => (
            state: unknown,
            path: string,
            method: string,
          ) => boolean;
        };
      };
    };
  }

  export interface SentRequest {
    readonly url: string;
    readonly headers: Record<string, string>;
  }

  export default function SwaggerUI(options: {
    readonly domNode: Element;
    readonly spec: unknown;
    readonly plugins: readonly Plugin[];
    readonly requestInterceptor: (request: SentRequest) => SentRequest;
    readonly onComplete: () => void;
    readonly validatorUrl: null;
    readonly deepLinking: boolean;
    readonly docExpansion: "list" | "full" | "none";
    readonly defaultModelsExpandDepth: number;
    readonly defaultModelRendering: "example" | "model";
    readonly displayRequestDuration: boolean;
    readonly queryConfigEnabled: boolean;
    readonly syntaxHighlight: { readonly activated: boolean };
  }): System;
}
