import { When } from "../../components/When";
import { exactly } from "../../format";
import { system as t } from "../../texts/en/system";
import { Fact } from "./About";
import { standing } from "./certificate";
import type { Certificate } from "./types";

interface Props {
  readonly certificate: Certificate | null;
  readonly urls: readonly string[];
}

const LOOPBACK = /^https?:\/\/(127\.|localhost[:/]|localhost$|\[::1\])/;

/** Whose certificate it is, for how long still, and why it wasn't renewed. */
export function CertificateCard({ certificate, urls }: Props) {
  return (
    <section class="system-card" aria-labelledby="system-certificate">
      <h2 id="system-certificate">{t.certificate}</h2>
      {certificate === null ? (
        <p class="soft">{urls.every((url) => LOOPBACK.test(url)) ? t.plainLocal : t.plain}</p>
      ) : (
        <Facts certificate={certificate} />
      )}
    </section>
  );
}

function Facts({ certificate }: { readonly certificate: Certificate }) {
  const { renewal, not_after: end } = certificate;
  const how = standing(certificate);
  return (
    <>
      <p>{t.sources[certificate.source]}</p>
      {renewal.last_error && (
        <div class="note bad">
          <p>{t.notRenewed}</p>
          <p>{renewal.last_error}</p>
        </div>
      )}
      <dl class="system-facts">
        <Fact name={t.expires}>
          {end && `${exactly(new Date(end))}, `}
          <span class={how}>{t.standing[how](certificate.days_left ?? 0)}</span>
        </Fact>
        <Fact name={t.names}>{certificate.names.join(", ")}</Fact>
        {certificate.issuer && <Fact name={t.issuer}>{certificate.issuer}</Fact>}
        {renewal.last_success && (
          <Fact name={t.renewed}>
            <When time={renewal.last_success} />
          </Fact>
        )}
        {renewal.next_try && (
          <Fact name={t.nextTry}>
            <When time={renewal.next_try} />
          </Fact>
        )}
      </dl>
    </>
  );
}
