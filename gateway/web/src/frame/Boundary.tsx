import { Component, type ComponentChildren } from "preact";
import { Button } from "../components/Button";
import { ErrorNote } from "../components/ErrorNote";
import { actions } from "../texts/en/common";
import { frame as t } from "../texts/en/frame";

interface Props {
  /** Where the person is: going elsewhere shows what is there. */
  readonly place: string;
  readonly children: ComponentChildren;
}

interface State {
  readonly error: unknown;
}

/** Around a screen: what throws while it is drawn takes the screen's place, and not the frame's. */
export class Boundary extends Component<Props, State> {
  override state: State = { error: null };

  static override getDerivedStateFromError(error: unknown): State {
    return { error: error ?? new Error(t.unshown) };
  }

  override componentDidCatch(error: unknown): void {
    console.error(error); // for whoever reports it
  }

  override componentDidUpdate(before: Props): void {
    if (before.place !== this.props.place && this.state.error !== null) this.#again();
  }

  readonly #again = (): void => this.setState({ error: null });

  override render({ children }: Props, { error }: State): ComponentChildren {
    if (error === null) return children;
    return (
      <section class="screen">
        <ErrorNote error={new Error(t.unshown)}>
          <p>
            <code>{error instanceof Error ? error.message : String(error)}</code>
          </p>
          <p>
            <Button onClick={this.#again}>{actions.tryAgain}</Button>
          </p>
        </ErrorNote>
      </section>
    );
  }
}
