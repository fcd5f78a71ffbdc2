// "Run it yourself": the values of the parameters become fields, and the commands follow them.
document.addEventListener("DOMContentLoaded", () => {
  const quoted = (text) => /^[\w.+/:-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;

  for (const panel of document.querySelectorAll("details.rerun")) {
    const commands = [...panel.querySelectorAll("pre")];
    const chapter = commands.find((pre) => pre.textContent.includes("book chapter"));
    const papermill = commands.find((pre) => pre.textContent.startsWith("papermill"));
    if (!chapter || !papermill) continue;
    const start = chapter.textContent.split(" -p ")[0].trimEnd();
    const example = chapter.textContent;
    const fields = [...panel.querySelectorAll("tbody tr")].map((row) => {
      const [name, , , cell] = [...row.cells].map((one) => one.textContent.trim());
      const here = cell.replace(/^'(.*)'$/, "$1");
      const field = document.createElement("input");
      Object.assign(field, { value: here, name, spellcheck: false, autocomplete: "off" });
      field.setAttribute("aria-label", `value of ${name}`);
      row.cells[3].replaceChildren(field);
      return { name, here, field };
    });

    panel.addEventListener("input", () => {
      const changed = fields.filter(({ here, field }) => field.value.trim() !== here);
      const options = changed.map(({ name, field }) => ` -p ${name} ${quoted(field.value.trim())}`);
      chapter.textContent = changed.length ? start + options.join("") : example;
      let text = papermill.textContent.trimEnd();
      fields.forEach(({ name, field }) => {
        const option = new RegExp(` -p ${name} ('[^']*'|\\S+)`);
        const value = ` -p ${name} ${quoted(field.value.trim())}`;
        const isNew = !option.test(text) && changed.some((one) => one.name === name);
        text = isNew ? text + value : text.replace(option, () => value);
      });
      papermill.textContent = text;
    });
  }
});
