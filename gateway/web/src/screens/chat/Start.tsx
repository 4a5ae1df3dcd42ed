import type { ListedModel } from "../../gateway/types";
import { chat as t } from "../../texts/en/chat";
import { questionsFor } from "./choice";

interface Props {
  readonly model: ListedModel;
  readonly personality: string | null;
  readonly onAsk: (question: string) => void;
}

/** An empty conversation: three questions to try. */
export function Start({ model, personality, onAsk }: Props) {
  return (
    <div class="start">
      <h2>{personality === null ? t.greeting : t.greetingBy(personality)}</h2>
      <ul aria-label={t.tryThese}>
        {questionsFor(model, personality).map((one) => (
          <li key={one}>
            <button type="button" onClick={() => onAsk(one)}>
              {one}
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
