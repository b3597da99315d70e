import { render } from "preact";
import { App } from "./app.tsx";
import { Feed } from "./feed.ts";
import "./style.css";

const token = new URLSearchParams(location.search).get("token") ?? "";
const connect = (onChange: () => void) => new Feed(token, onChange);

const root = document.getElementById("app");
if (root !== null) {
  render(<App connect={connect} />, root);
}
