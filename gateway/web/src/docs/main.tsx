import { render } from "preact";
import "../styles/tokens.css";
import "../styles/base.css";
import "../components/components.css";
import "../theme";
import { Docs } from "./Docs";

const place = document.getElementById("page");
if (!place) throw new Error("docs.html has no #page");
render(<Docs />, place);
