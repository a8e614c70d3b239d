// A click on a column's head sorts the table by it, a second click the other way.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.dataset.sorts = "";
    head.addEventListener("click", () => {
      const down = head.dataset.sorts !== "up";
      head.dataset.sorts = down ? "up" : "down";
      const key = (row) => {
        const text = row.cells[column].textContent.trim().replace("−", "-");
        const number = parseFloat(text);
        return Number.isNaN(number) ? text : number;
      };
      const rows = [...body.rows].sort((a, b) => (key(a) > key(b) ? 1 : -1) * (down ? 1 : -1));
      body.append(...rows);
    });
  });
}
