import { render } from "preact";
import "../../../inspector/src/style.css";
import { Page } from "./page.tsx";
import "./style.css";

const root = document.getElementById("app");
if (root !== null) {
  render(<Page />, root);
}
