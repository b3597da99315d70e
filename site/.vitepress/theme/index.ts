/** VitePress's theme without its fonts, and the colours of the pictures. */
import DefaultTheme from "vitepress/theme-without-fonts";
import "./style.css";

export default DefaultTheme;
