import { render } from "preact";
import { App } from "./app";
import { enter, watchLinks } from "./gateway/entrance";
import { installShell } from "./install";
import "./styles/tokens.css";
import "./styles/base.css";
import "./components/components.css";
import "./theme";

watchLinks();
installShell();

const place = document.getElementById("page");
if (!place) throw new Error("index.html has no #page");
void enter();
render(<App />, place);
