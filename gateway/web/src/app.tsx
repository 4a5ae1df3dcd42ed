/** What there is to see: the way in, or the frame with one of the screens for this key. */

import { Connecting } from "./frame/Connecting";
import { Frame } from "./frame/Frame";
import { box } from "./gateway/connection";
import { adding, entering } from "./gateway/entrance";
import { lost, signedIn } from "./gateway/live";
import SignIn from "./screens/signin/SignIn";

export function App() {
  const asks = !signedIn.value || lost.value || adding.value;
  // Behind the question for another key the screens stay, with what was typed in them.
  return (
    <>
      {signedIn.value && (
        <div class="behind" hidden={asks}>
          <Frame key={box.value?.address} />
        </div>
      )}
      {asks && (entering.value && !adding.value && !lost.value ? <Connecting /> : <SignIn />)}
    </>
  );
}
