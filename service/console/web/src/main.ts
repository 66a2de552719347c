/** What comes first and is small: it asks for what the page shows, while the script that draws it is on its way. */
import { CONSOLE } from "@/api/client";
import { askAhead } from "@/app/ahead";
import { applyTheme, storedTheme } from "@/app/theme";
import "@/styles/tokens.css";
import "@/styles/base.css";
import "@/styles/parts.css";

applyTheme(storedTheme());
const path = location.pathname.slice(CONSOLE.length);
const asked = askAhead(path);
void import("@/app/start").then(({ start }) => start(path, asked));
