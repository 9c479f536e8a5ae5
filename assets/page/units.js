(() => {
  const list = document.querySelector(".units");
  const cards = [...list.children];
  const order = document.getElementById("order");
  const dead = document.getElementById("dead");
  const find = document.getElementById("find");
  document.querySelector(".controls").hidden = false;
  const show = () => {
    const key = order.value;
    const by = (card) => Number(card.dataset[key]);
    const sign = key === "unit" ? 1 : -1;
    cards.sort((a, b) => sign * (by(a) - by(b)) || by(a) - by(b) || a.dataset.unit - b.dataset.unit);
    for (const card of cards) {
      const isDead = card.classList.contains("dead");
      card.hidden = (isDead && !dead.checked) || (find.value !== "" && card.dataset.unit !== find.value.trim());
      card.style.display = card.hidden ? "none" : "";
      list.append(card);
    }
  };
  for (const control of [order, dead, find]) control.addEventListener("input", show);
})();
