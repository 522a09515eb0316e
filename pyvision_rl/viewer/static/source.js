// Where the pages get their data: the local server, or what an exported file carries.

async function getJson(name, params) {
  const response = await fetch(`/api/${name}?${new URLSearchParams(params)}`);
  const body = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(body.error ?? `the server answered ${response.status}`);
  return body;
}

export class ServerSource {
  exported = false;

  hello() { return getJson("hello", {}); }
  runs() { return getJson("runs", {}); }
  metrics(run) { return getJson("metrics", { run }); }
  groups(run, phase, step) { return getJson("groups", { run, phase, step }); }
  group(run, phase, step, group) { return getJson("group", { run, phase, step, group }); }
  trajectories(run, query, offset, limit) {
    return getJson("trajectories", { ...Object.fromEntries(new URLSearchParams(query)), run, offset, limit });
  }
  trajectory(run, ref, query) { return getJson("trajectory", { run, ...ref, in: query }); }
  readAhead(run) { return getJson("read_ahead", { run }); }
  neighbours(run, ref, query) { return getJson("neighbours", { run, ...ref, in: query }); }
  tokens(run, ref) { return getJson("tokens", { run, ...ref }); }
  image(run, ref, sha1) {
    return `/image?${new URLSearchParams({ run, phase: ref.phase, step: ref.step, sha1 })}`;
  }
  original(run, ref, k) { return `/original?${new URLSearchParams({ run, ...ref, k })}`; }
  film(run, ref, k) { return `/film?${new URLSearchParams({ run, ...ref, k })}`; }
  frame(run, ref, k, frame) { return `/frame?${new URLSearchParams({ run, ...ref, k, frame })}`; }
}

export class EmbeddedSource {
  exported = true;

  constructor(data) {
    this.data = data;
    this.items = new Map(data.items.map((item) => [this.key(item.view.ref), item]));
  }

  key(ref) { return [ref.phase, ref.step, ref.group, ref.index].join("/"); }
  find(ref) {
    const item = this.items.get(this.key(ref));
    if (!item) throw new Error("this trajectory is not in the file");
    return item;
  }
  async hello() { return { mode: "export", run: this.data.run }; }
  async runs() { return []; }
  async trajectories(run, query, offset, limit) {
    const rows = this.data.items.map((item) => item.view.row);
    return { total: rows.length, all: rows.length, rows: rows.slice(offset, offset + limit), facets: {} };
  }
  async trajectory(run, ref) {
    const { view } = this.find(ref);
    const all = this.data.items.map((item) => item.view);
    const position = all.indexOf(view);
    const siblings = all.filter((other) => other.ref.phase === ref.phase && other.ref.step === view.ref.step && other.ref.group === view.ref.group);
    return {
      view,
      siblings: siblings.map((other) => other.row).sort((a, b) => a.index - b.index),
      neighbours: { total: all.length, position, previous: all[position - 1]?.ref ?? null, next: all[position + 1]?.ref ?? null },
    };
  }
  async group(run, phase, step, group) {
    const all = this.data.items.map((item) => item.view);
    return all.filter(({ ref }) => ref.phase === phase && ref.step === Number(step) && ref.group === Number(group))
      .sort((a, b) => a.ref.index - b.ref.index);
  }
  async tokens(run, ref) { return this.find(ref).tokens; }
  image(run, ref, sha1) { return this.data.images[sha1]; }
  film(run, ref, k) { return this.data.films[this.find(ref).view.videos[k].path] ?? null; }
  frame() { return null; }
  original(run, ref, k) { return this.data.originals[this.find(ref).view.images[k].path] ?? null; }
}
