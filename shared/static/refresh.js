"use strict";
// Puts the newest rendering of the page in the place of what is shown. Without scripts the page reloads itself.
const everyMilliseconds = 2000;

async function refresh() {
  if (!document.hidden) {
    try {
      const response = await fetch(location.href, { cache: "no-store" });
      if (response.ok) {
        const page = new DOMParser().parseFromString(await response.text(), "text/html");
        document.querySelector("main").replaceWith(page.querySelector("main"));
      }
    } catch (error) {
      console.warn("the page could not be refreshed", error);
    }
  }
  setTimeout(refresh, everyMilliseconds);
}

setTimeout(refresh, everyMilliseconds);
