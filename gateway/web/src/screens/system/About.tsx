import { Fragment, type ComponentChildren } from "preact";
import { When } from "../../components/When";
import { system as t } from "../../texts/en/system";
import type { Report } from "./types";

const PATHS = ["config", "models_file", "llm_storage", "data_dir"] as const;

/** Versions, addresses, and where the files are. */
export function About({ report }: { readonly report: Report }) {
  const { llama_server: server } = report;
  return (
    <section class="system-card" aria-labelledby="system-about">
      <h2 id="system-about">{t.about}</h2>
      <dl class="system-facts">
        <Fact name={t.gateway}>
          {report.version}
          <span class="soft">, {t.python(report.python)}</span>
        </Fact>
        <Fact name={t.llamaServer}>
          {server.version ?? t.unknownVersion}
          {(server.bundled || server.path) && (
            <span class="soft">
              , {server.bundled ? t.bundled : <Path of={server.path ?? ""} />}
            </span>
          )}
          {server.problem && <p class="bad">{server.problem}</p>}
        </Fact>
        <Fact name={t.started}>
          <When time={report.started} />
          <span class="soft">, {t.runs(report.user, report.pid)}</span>
        </Fact>
        <Fact name={t.machine}>
          {report.system}
          {report.processors !== null && (
            <span class="soft">, {t.processors(report.processors)}</span>
          )}
        </Fact>
        <Fact name={t.addresses}>
          {report.urls.map((url) => (
            <p key={url}>
              <code>{url}</code>
            </p>
          ))}
          {report.redirect_urls.map((url) => (
            <p key={url} class="soft">
              {t.redirects(url)}
            </p>
          ))}
        </Fact>
        {PATHS.map((one) => (
          <Fact key={one} name={t.paths[one]}>
            {report.paths[one] === null ? (
              t.defaults
            ) : (
              <code>
                <Path of={report.paths[one]} />
              </code>
            )}
          </Fact>
        ))}
      </dl>
    </section>
  );
}

/** A path, which is broken between folders where it doesn't fit. */
function Path({ of }: { readonly of: string }) {
  const [first, ...others] = of.split("/");
  return (
    <>
      {first}
      {others.map((part, index) => (
        <Fragment key={index}>
          /<wbr />
          {part}
        </Fragment>
      ))}
    </>
  );
}

export function Fact({
  name,
  children,
}: {
  readonly name: string;
  readonly children: ComponentChildren;
}) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
