// Draws charts and tables. Everything from outside becomes text, never markup.

const WINDOW_S = 900;
const SVG = 'http://www.w3.org/2000/svg';
export const $ = (id) => document.getElementById(id);

// ---- Words and numbers

const compact = new Intl.NumberFormat('en', {notation: 'compact', maximumSignificantDigits: 3});
const number = (value) => (value == null ? '–' : compact.format(value));
const percent = (value) => (value == null ? '–' : `${+(value * 100).toPrecision(3)} %`);

function bytes(value) {
  if (value == null) return '–';
  const unit = Math.min(4, Math.floor(Math.log2(Math.max(value, 1)) / 10));
  return `${+(value / 1024 ** unit).toPrecision(3)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit]}`;
}

function seconds(value) {
  if (value == null) return '–';
  if (value < 1e-3) return `${+(value * 1e6).toPrecision(2)} µs`;
  if (value < 1) return `${+(value * 1e3).toPrecision(2)} ms`;
  if (value < 60) return `${+value.toPrecision(2)} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(value % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function clock(unixS) {
  if (unixS == null) return '–';
  const at = new Date(unixS * 1000);
  const time = at.toTimeString().slice(0, 8);
  if (at.toDateString() === new Date().toDateString()) return time;
  const day = `${at.getFullYear()}-${String(at.getMonth() + 1).padStart(2, '0')}-${String(at.getDate()).padStart(2, '0')}`;
  return `${day} ${time.slice(0, 5)}`;
}

// ---- Elements

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function drawn(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// Only what changes is touched: screen readers read changes out, and selections stay.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function sync(parent, items, keyOf, create, update) {
  const known = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  items.forEach((item, place) => {
    const key = String(keyOf(item));
    const node = known.get(key) ?? create(item);
    known.delete(key);
    node.dataset.key = key;
    if (parent.children[place] !== node) parent.insertBefore(node, parent.children[place] ?? null);
    update(node, item);
  });
  for (const node of known.values()) node.remove();
}

// ---- Charts

function line(times, points, top, width, height) {
  const first = times[0], span = Math.max(times.at(-1) - first, 1);
  let path = '', pen = 'M';
  points.forEach((value, place) => {
    if (value == null) { pen = 'M'; return; }
    const x = ((times[place] - first) / span) * width;
    const y = height - (value / top) * (height - 3) - 1;
    path += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = 'L';
  });
  return path;
}

const CHARTS = [
  {name: 'Requests a second', series: [['requests', '']], show: number},
  {name: 'Keys a second', series: [['keys', '']], show: number},
  {name: 'Seek time', series: [['p99', 'p99'], ['p50', 'p50']], show: seconds},
  {name: 'Missing keys', series: [['missing', '']], show: percent},
  {name: 'CTR rows a second', series: [['rows', '']], show: number, ofCtr: true},
  {name: 'CTR p99', series: [['seek_p99', 'seek'], ['infer_p99', 'infer'], ['queue_p99', 'queue']], show: seconds, ofCtr: true},
];

function makeChart(chart) {
  const head = element('figcaption', {}, element('span', {}, chart.name), element('span', {class: 'values'}));
  const drawing = drawn('svg', {viewBox: '0 0 300 64', preserveAspectRatio: 'none', role: 'img'});
  const foot = element('p', {class: 'axis', 'aria-hidden': 'true'}, element('span'), element('span'));
  return element('figure', {}, head, drawing, foot);
}

function updateChart(figure, chart, told) {
  const all = chart.series.map(([name, label]) => [label, told.series[name] ?? []]);
  const values = all.flatMap(([, points]) => points).filter((value) => value != null);
  const top = Math.max(...values, 0) || 1;
  const latest = all.map(([label, points]) => [label, points.at(-1)]);
  sync(figure.querySelector('.values'), latest, ([label]) => label, () => element('span'),
    (node, [label, value]) => say(node, `${label} ${chart.show(value)}`.trim()));
  const drawing = figure.querySelector('svg');
  const words = latest.map(([label, value]) => `${label} ${chart.show(value)}`.trim()).join(', ');
  const highest = values.length ? chart.show(Math.max(...values)) : 'nothing';
  drawing.setAttribute('aria-label', `${chart.name}: now ${words}; highest ${highest}`);
  drawing.replaceChildren(
    drawn('path', {class: 'ground', d: 'M0 63.5H300'}),
    ...all.map(([, points], place) => drawn('path', {class: `line line-${place}`, d: line(told.times_s, points, top, 300, 64)})));
  const ago = told.times_s.length ? told.times_s.at(-1) - told.times_s[0] : 0;
  const [left, right] = figure.querySelectorAll('.axis span');
  say(left, `${seconds(Math.min(ago, WINDOW_S))} ago`);
  say(right, values.length ? `max ${highest}` : 'nothing yet');
}

export function showCharts(told) {
  const hasCtr = told.has_ctr;
  const charts = CHARTS.filter((chart) => hasCtr || !chart.ofCtr);
  if (!told.times_s.length) return;
  sync($('charts'), charts, (chart) => chart.name, makeChart, (node, chart) => updateChart(node, chart, told));
  for (const cell of document.querySelectorAll('[data-load]')) {
    const points = told.loads[cell.dataset.load] ?? [];
    const top = Math.max(...points.map((value) => value ?? 0), 0) || 1;
    const drawing = drawn('svg', {viewBox: '0 0 80 20', preserveAspectRatio: 'none', 'aria-hidden': 'true'});
    drawing.append(drawn('path', {class: 'line line-0', d: points.length ? line([...points.keys()], points, top, 80, 20) : ''}));
    cell.replaceChildren(drawing);
  }
}

// ---- Tables

const LEVEL_OF = {serves: 'good', switched: 'good', behind: 'warning', refuses: 'warning', down: 'bad', empty: 'bad'};

function stateCell(cell, word) {
  const mark = cell.firstChild ?? cell.appendChild(element('span'));
  mark.className = `state ${LEVEL_OF[word] ?? 'quiet'}`;
  say(mark, word);
}

const plain = (show) => (cell, item) => say(cell, show(item));
// Where it is narrow, the line ends behind the slash.
const joined = (value) => seconds(value).replaceAll(' ', '\u00a0');
const latency = (p50, p99) => (item) => (item[p50] == null ? '–' : `${joined(item[p50])}\u00a0/ ${joined(item[p99])}`);

const SERVER_COLUMNS = [
  ['Shard', plain((each) => String(each.shard)), 'number'],
  ['Replica', (cell, each) => nameCell(cell, each.name, each.endpoint), 'name'],
  ['State', (cell, each) => stateCell(cell, each.state)],
  ['Version', plain((each) => (each.version ? (each.state === 'down' ? 'was ' : '') + each.version : '–'))],
  ['Wanted', plain((each) => each.wanted || '–')],
  ['Keys', plain((each) => number(each.keys)), 'number'],
  ['Memory', plain((each) => bytes(each.memory_bytes)), 'number'],
  ['Requests/s', plain((each) => number(each.requests_s)), 'number'],
  ['Keys/s', plain((each) => number(each.keys_s)), 'number'],
  ['p50 / p99', plain(latency('p50_s', 'p99_s')), 'number'],
  ['Missing', plain((each) => percent(each.missing_share)), 'number'],
  ['Keys/s, 15 min', (cell, each) => { cell.dataset.load = each.name; }, 'load'],
];

const CTR_COLUMNS = [
  ['Server', (cell, each) => nameCell(cell, each.name, ''), 'name'],
  ['State', (cell, each) => stateCell(cell, each.state)],
  ['Dense part', plain((each) => each.dense || '–')],
  ['Sparse part', plain((each) => (each.dense ? `${each.dense}, ${each.sparse_shards} of ${each.shards} shards` : '–'))],
  ['Rows/s', plain((each) => number(each.rows_s)), 'number'],
  ['Requests/s', plain((each) => number(each.requests_s)), 'number'],
  ['Failed', plain((each) => percent(each.failed_share)), 'number'],
  ['Queue p50 / p99', plain(latency('queue_p50_s', 'queue_p99_s')), 'number'],
  ['Seek p50 / p99', plain(latency('seek_p50_s', 'seek_p99_s')), 'number'],
  ['Infer p50 / p99', plain(latency('infer_p50_s', 'infer_p99_s')), 'number'],
  ['Cache hits', plain((each) => (each.has_cache ? percent(each.cache_hit_share) : 'no cache')), 'number'],
  ['Missing of 100 rows, by slot', slotsCell, 'slots'],
  ['Rows/s, 15 min', (cell, each) => { cell.dataset.load = each.name; }, 'load'],
];

function nameCell(cell, name, detail) {
  if (!cell.firstChild) cell.append(element('strong'), ' ', element('span', {class: 'quiet'}));
  say(cell.firstChild, name);
  say(cell.lastChild, detail);
}

function slotsCell(cell, each) {
  const slots = each.missing_by_slot;
  if (!slots.length) { cell.replaceChildren('–'); delete cell.dataset.told; return; }
  const top = Math.max(...slots, 1e-9), worst = slots.indexOf(Math.max(...slots));
  const words = Math.max(...slots) > 0 ? `most: slot ${worst}, ${number(slots[worst])}` : 'none';
  if (cell.dataset.told === JSON.stringify(slots)) return;
  cell.dataset.told = JSON.stringify(slots);
  const width = 100 / slots.length;
  const drawing = drawn('svg', {viewBox: '0 0 100 20', preserveAspectRatio: 'none', 'aria-hidden': 'true'});
  drawing.append(...slots.map((value, slot) => {
    const height = Math.max(0.6, (value / top) * 20);
    return drawn('rect', {x: slot * width, y: 20 - height, width: width * 0.8, height});
  }));
  const list = element('ol', {start: '0'}, ...slots.map((value) => element('li', {}, number(value))));
  const wasOpen = cell.querySelector('details')?.open ?? false;
  const more = element('details', {}, element('summary', {}, words), element('p', {class: 'quiet'}, 'Missing keys of 100 rows:'), list);
  more.open = wasOpen;
  cell.replaceChildren(drawing, more);
}

function showTable(table, columns, items) {
  if (!table.tHead.rows.length) {
    table.tHead.append(element('tr', {role: 'row'}, ...columns.map(([name, , kind]) => element('th', {scope: 'col', role: 'columnheader', class: kind ?? ''}, name))));
  }
  const makeRow = () => element('tr', {role: 'row'}, ...columns.map(([name, , kind]) =>
    (kind === 'name' ? element('th', {scope: 'row', role: 'rowheader', class: kind, 'data-name': name})
      : element('td', {role: 'cell', class: kind ?? '', 'data-name': name}))));
  sync(table.tBodies[0], items, (each) => each.name, makeRow, (row, each) =>
    columns.forEach(([, show], place) => show(row.cells[place], each)));
}

// ---- Deployments

const STEPS = ['pull', 'build', 'ship', 'load', 'switch', 'publish', 'tidy'];

function deploymentState(each) {
  if (each.is_under_way) return ['busy', each.step || 'begins'];
  if (each.stage === 'failed') return ['bad', `failed in ${each.step || 'begin'}`];
  if (each.stage === 'superseded') return ['quiet', each.error ? 'skipped' : 'superseded'];
  if (each.is_served && each.stage === 'done') return ['good', 'served'];
  if (each.rolled_back) return ['quiet', 'rolled back from'];
  return ['quiet', each.stage];
}

const kindOf = {pass: 'Pass', patch: 'Patch', rollback: 'Rollback', reshard: 'Other shards'};

function makeDeployment(each) {
  const summary = element('summary', {}, element('span', {class: 'which'}), element('span', {class: 'state'}),
    element('span', {class: 'bar', 'aria-hidden': 'true'}), element('span', {class: 'took'}), element('span', {class: 'began quiet'}));
  const steps = element('table', {}, element('caption', {}, 'Steps'), element('tbody'));
  const shards = element('div', {class: 'scrolled'}, element('table', {},
    element('caption', {}, 'Seconds of each shard, its slowest server'),
    element('thead', {}, element('tr', {}, ...['Shard', 'ship', 'load', 'switch'].map((name) => element('th', {scope: 'col'}, name)))),
    element('tbody')));
  const details = element('details', {}, summary, element('p', {class: 'error'}), element('p', {class: 'late quiet'}),
    element('div', {class: 'both'}, steps, shards));
  details.open = each.is_under_way || each.is_newest_failed;
  return element('li', {}, details);
}

function updateDeployment(item, each) {
  const [level, word] = deploymentState(each);
  say(item.querySelector('.which'), `${kindOf[each.kind] ?? each.kind} ${each.kind === 'pass' ? each.id : each.version}`);
  const mark = item.querySelector('.state');
  mark.className = `state ${level}`;
  say(mark, word);
  say(item.querySelector('.took'), each.took_s == null ? '' : seconds(each.took_s));
  say(item.querySelector('.began'), clock(each.began_s));
  say(item.querySelector('.error'), each.error);
  say(item.querySelector('.late'), each.late.length ? `Went on without ${each.late.join(', ')}.` : '');
  sync(item.querySelector('.bar'), each.steps, (step) => step.name, (step) => element('span', {class: `step-${step.name}`, title: step.name}),
    (node, step) => {
      node.style.flexGrow = String(Math.max((step.took_s ?? 0) * 1000, 1));
      node.dataset.state = step.state;
    });
  const [steps, shards] = item.querySelectorAll('tbody');
  sync(steps, each.steps, (step) => step.name, () => element('tr', {}, element('th', {scope: 'row'}), element('td', {class: 'number'})),
    (row, step) => {
      say(row.cells[0], step.name);
      const since = step.since_s ? `since ${clock(step.since_s)}` : 'under way';
      say(row.cells[1], step.state === 'now' ? since : seconds(step.took_s) + (step.state === 'failed' ? ', failed' : ''));
    });
  const barriers = ['ship', 'load', 'switch'].map((step) => each.shards_took_s[step] ?? {});
  const names = [...new Set(barriers.flatMap((shard) => Object.keys(shard)))].sort((a, b) => a - b);
  item.querySelector('.scrolled').hidden = !names.length;
  sync(shards, names, (name) => name, () => element('tr', {}, element('th', {scope: 'row'}), ...barriers.map(() => element('td', {class: 'number'}))),
    (row, name) => {
      say(row.cells[0], name);
      barriers.forEach((shard, place) => say(row.cells[place + 1], seconds(shard[name])));
    });
}

export function showTables(state) {
  showTable($('servers'), SERVER_COLUMNS, state.servers);
  sync($('legend'), STEPS, (step) => step, (step) => element('span', {}, element('i', {class: `step-${step}`}), step), () => {});
  sync($('deployments'), state.deployments, (each) => each.order, makeDeployment, updateDeployment);
  $('no-ctr').hidden = state.ctr_servers.length > 0;
  $('ctr').hidden = !state.ctr_servers.length;
  showTable($('ctr'), CTR_COLUMNS, state.ctr_servers);
}
