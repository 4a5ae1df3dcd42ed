import { Button } from "../../components/Button";
import { ErrorNote } from "../../components/ErrorNote";
import { LogView } from "../../components/LogView";
import { logOf } from "../../gateway/logs";
import { usePolled } from "../../gateway/polled";
import { actions } from "../../texts/en/common";
import { system as t } from "../../texts/en/system";
import { About } from "./About";
import { CertificateCard } from "./CertificateCard";
import { Nodes } from "./Nodes";
import { OverTime } from "./OverTime";
import { Problems } from "./Problems";
import { Room } from "./Room";
import type { Report } from "./types";
import "./system.css";

const gatewayLog = logOf("/admin/log?lines=10000");
/** Seconds. */
const EVERY = 10;

export default function System() {
  const { value, error, again } = usePolled<Report>("/admin/system", EVERY);
  const report = value.value;
  return (
    <section class="screen system">
      <h1 class="in-topbar">{t.title}</h1>
      {error.value !== null && (
        <ErrorNote error={error.value}>
          {report && <p class="soft">{t.stale}</p>}
          <p>
            <Button onClick={again}>{actions.tryAgain}</Button>
          </p>
        </ErrorNote>
      )}
      {report === null && error.value === null && <p class="soft">{actions.loading}</p>}
      {report && (
        <>
          <Problems report={report} />
          <div class="system-cards">
            <About report={report} />
            <div class="system-column">
              <Room report={report} />
              <CertificateCard certificate={report.certificate} urls={report.urls} />
            </div>
          </div>
          {report.nodes && report.nodes.length > 0 && <Nodes nodes={report.nodes} />}
        </>
      )}
      <OverTime />
      <section class="system-part" aria-labelledby="system-log">
        <h2 id="system-log">{t.log}</h2>
        <LogView title={t.logLines} source={gatewayLog} />
      </section>
    </section>
  );
}
