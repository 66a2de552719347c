/** Return a colour token as canvas understands it, in the theme that is shown: `colour(element, "--accent")`. */
export function colour(element: HTMLElement, token: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(${token})`;
  element.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
