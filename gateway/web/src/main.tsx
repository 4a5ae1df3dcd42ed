import { render } from "preact";
import { App } from "./app";
import { watchDrops } from "./drops";
import { enter, watchLinks } from "./gateway/entrance";
import { installShell } from "./install";
import "./styles/tokens.css";
import "./styles/base.css";
import "./components/components.css";
import "./theme";

watchLinks();
watchDrops();
installShell();

const place = document.getElementById("page");
if (!place) throw new Error("index.html has no #page");
void enter();
render(<App />, place);
