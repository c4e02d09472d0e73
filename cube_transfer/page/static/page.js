// Listens to /events, says what is wrong, and orders what is confirmed.

import {$, clock, element, say, showCharts, showTables, sync} from './show.js';

const SILENCE_MS = 40000;
const TOKEN_KEY = 'cube-transfer token';
let state = null;
let right = 'nothing';
let disconnectedSince = null;

// ---- What is wrong

const MARKS = {bad: '✕', warning: '!', note: 'i', good: '✓'};

function problemsShown() {
  const problems = [...(state?.problems ?? [])];
  if (disconnectedSince != null) {
    problems.unshift({key: 'connection', level: 'bad', text: 'This page has no connection to the daemon.',
      advice: 'What is below is as it was then. It is tried again by itself.', since_s: disconnectedSince, action: ''});
  }
  if (state && !problems.length) {
    problems.push({key: 'fine', level: 'good', text: 'Nothing is wrong.', advice: state.summary, since_s: null, action: ''});
  }
  return problems;
}

function showProblems() {
  const make = () => element('li', {}, element('span', {class: 'mark', 'aria-hidden': 'true'}),
    element('div', {}, element('p', {class: 'what'}), element('p', {class: 'advice'})), element('p', {class: 'since quiet'}));
  sync($('problems'), problemsShown(), (each) => each.key, make, (node, each) => {
    node.className = each.level;
    say(node.querySelector('.mark'), MARKS[each.level] ?? '');
    say(node.querySelector('.what'), each.text);
    say(node.querySelector('.advice'), each.advice);
    say(node.querySelector('.since'), each.since_s == null ? '' : `since ${clock(each.since_s)}`);
    offer(node, each.action);
  });
  const wrong = problemsShown().filter((each) => ['bad', 'warning'].includes(each.level)).length;
  document.title = `${wrong ? `(${wrong}) ` : ''}${state ? `${state.dict_name} ${state.wanted}` : 'cube-transfer'}`;
}

function offer(node, action) {
  if ((node.dataset.action ?? '') === action) return;
  node.dataset.action = action;
  node.querySelector('button')?.remove();
  if (!action) return;
  const [name, pass] = action.split(/ (.*)/s);
  const button = element('button', {type: 'button'}, name === 'retry' ? 'Retry…' : 'Resume…');
  button.addEventListener('click', () => (name === 'retry' ? askRetry(pass) : askPause()));
  node.querySelector('div').append(button);
}

function showState() {
  say($('dict'), state.dict_name);
  const since = state.served_since_s ? ` since ${clock(state.served_since_s)}` : '';
  say($('serving'), state.wanted ? `serves ${state.wanted}${since}` : 'serves nothing yet');
  say($('pause'), state.paused ? 'Resume…' : 'Pause…');
  $('rollback').disabled = !state.rollback_to.length;
  $('pause').disabled = $('retry').disabled = false;
  showProblems();
  showTables(state);
}

// ---- Commands

const authorization = () => {
  const token = sessionStorage.getItem(TOKEN_KEY);
  return token ? {authorization: `Bearer ${token}`} : {};
};

// Asks in the dialog; `act` gets what was chosen and throws what is to be told there.
function ask({title, text, yes, choices = [], needsToken, act}) {
  say($('ask-title'), title);
  say($('ask-text'), text);
  say($('ask-yes'), yes);
  say($('ask-error'), '');
  $('ask-choice').replaceChildren(...choices.map((each) => {
    const option = element('option', {value: each.version}, `${each.version}, served ${clock(each.served_s)}`);
    option.selected = each.usual;
    return option;
  }));
  $('ask-choice-label').hidden = !choices.length;
  $('ask-token-label').hidden = !needsToken;
  $('ask-token').value = '';
  // Another question may have been opened when an answer comes late.
  const isAsked = () => $('ask').onsubmit === submit;
  const submit = async (event) => {
    event.preventDefault();
    $('ask-yes').disabled = true;
    try {
      const done = await act($('ask-choice').value, $('ask-token').value);
      if (isAsked()) $('ask').close();
      say($('done'), done ?? '');
    } catch (error) {
      if (!isAsked()) return;
      say($('ask-error'), error.message);
      if (error.isAboutToken) {
        $('ask-token-label').hidden = false;
        $('ask-token').focus();
      }
    } finally {
      if (isAsked()) $('ask-yes').disabled = false;
    }
  };
  $('ask').onsubmit = submit;
  $('ask-yes').disabled = false;
  $('ask').showModal();
}

async function order(command, body, token) {
  const headers = {'content-type': 'application/json', ...(token ? {authorization: `Bearer ${token}`} : authorization())};
  let response;
  try {
    response = await fetch(`control/${command}`, {method: 'POST', headers, body: JSON.stringify(body)});
  } catch {
    throw new Error('The daemon cannot be reached.');
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = new Error(typeof answer.detail === 'string' ? answer.detail : `HTTP ${response.status}`);
    error.isAboutToken = response.status === 401 || response.status === 403;
    throw error;
  }
  if (token) useToken(token);
  return answer;
}

function askRollback() {
  ask({
    title: 'Roll back?',
    text: `All servers go back from ${state.wanted}, to the tables that they hold, and the dense model of that version is published.`
      + (state.under_way ? ` What is under way (${state.under_way}) is given up.` : ''),
    yes: 'Roll back', choices: state.rollback_to, needsToken: right !== 'operate',
    act: async (version, token) => `The rollback to ${(await order('rollback', {version}, token)).version} is ordered.`,
  });
}

function askRetry(pass) {
  ask({
    title: pass ? `Retry ${pass}?` : 'Retry?',
    text: 'A failed pass is deployed anew; what waits for its next attempt is tried at once.',
    yes: 'Retry', needsToken: right !== 'operate',
    act: async (_, token) => {
      const answer = await order('retry', {id: pass}, token);
      return `${answer.id}: ${answer.version} ${answer.did}.`;
    },
  });
}

function askPause() {
  const command = state.paused ? 'resume' : 'pause';
  ask({
    title: state.paused ? 'Resume deployments?' : 'Pause deployments?',
    text: state.paused ? 'The daemon takes the newest pass of the donefile.'
      : 'New passes of the donefile are left alone until you resume. What is under way goes on.',
    yes: state.paused ? 'Resume' : 'Pause', needsToken: right !== 'operate',
    act: async (_, token) => `Deployments are ${(await order(command, {}, token)).paused ? 'paused' : 'resumed'}.`,
  });
}

function askToken(reason) {
  ask({
    title: 'Token', yes: 'Use it', needsToken: true,
    text: `${reason ?? 'A token of the daemon: to look, or also to operate.'} It is kept until this tab is closed; none forgets it.`,
    act: (_, token) => useToken(token),
  });
}

// ---- Connection

let listening = new AbortController();

function useToken(token) {
  if (token) sessionStorage.setItem(TOKEN_KEY, token);
  else sessionStorage.removeItem(TOKEN_KEY);
  listening.abort();
}

function showConnection(isLive, word) {
  if (isLive) disconnectedSince = null;
  else disconnectedSince ??= Date.now() / 1000;
  $('connection').className = `state ${isLive ? 'good' : 'bad'}`;
  say($('connection'), word);
  showProblems();
}

const HANDLERS = {
  hello: (told) => { right = told.right; showConnection(true, right === 'operate' ? 'live' : 'live, to look only'); },
  state: (told) => { state = told; showState(); },
  charts: showCharts,
};

async function readEvents(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    heard();
    const frames = (text + value).split('\n\n');
    text = frames.pop();
    for (const frame of frames) {
      const [, kind, data] = /^event: (\w+)\ndata: (.*)$/s.exec(frame) ?? [];
      if (kind in HANDLERS) HANDLERS[kind](JSON.parse(data));
    }
  }
}

async function listen() {
  listening = new AbortController();
  let silence;
  const giveUp = () => { showConnection(false, 'not connected'); listening.abort(); };
  const heard = () => { clearTimeout(silence); silence = setTimeout(giveUp, SILENCE_MS); };
  try {
    heard();
    const response = await fetch('events', {headers: authorization(), cache: 'no-store', signal: listening.signal});
    if (response.status === 401 || response.status === 403) {
      clearTimeout(silence);  // Nothing is awaited but a token: who wants to give none is not asked again.
      showConnection(false, 'needs a token');
      if (!$('ask').open) askToken('The daemon shows its state to those with the read token.');
      await new Promise((resolve) => listening.signal.addEventListener('abort', resolve));
      return 0;
    }
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    await readEvents(response.body, heard);
    showConnection(false, 'not connected');
  } catch {
    if (listening.signal.aborted) return 0;
    showConnection(false, 'not connected');
  } finally {
    clearTimeout(silence);
  }
  return 1000 + Math.random() * 2000;
}

async function listenForEver() {
  for (;;) {
    const pauseMs = await listen();
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}

$('rollback').addEventListener('click', askRollback);
$('pause').addEventListener('click', askPause);
$('retry').addEventListener('click', () => askRetry(''));
$('token').addEventListener('click', () => askToken());
$('ask-no').addEventListener('click', () => $('ask').close());
listenForEver();
