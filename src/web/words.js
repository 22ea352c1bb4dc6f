// What the page says, in English and Chinese. The words of the protocol (channel, endpoint, role
// names, methods) stay as they are on the wire where they name it.

const WORDS = {
  en: {
    "state.idle": "Not connected",
    "state.connecting": "Connecting",
    "state.joining": "Joining",
    "state.joined": "Connected",
    "state.reconnecting": "Reconnecting",
    "state.resumed.at": "resumed at {time}, nothing lost",
    "state.rejoined.at": "joined anew at {time}",
    "state.attempt": "try {n}",
    "state.in": "in {n} s",

    "join.title": "Join a channel",
    "join.app": "App",
    "join.channel": "Channel",
    "join.endpoint": "Endpoint",
    "join.endpoint.hint": "Your name in the room. Empty: the server makes one.",
    "join.role": "Role",
    "join.token": "Token",
    "join.token.hint": "Only where the server has keys: meeting-server gen-token makes one.",
    "join.enter": "Join",
    "join.entering": "Joining…",
    "join.slow": "No connection yet. Still trying for some seconds.",
    "join.too.long": "{n} bytes; 128 at most",

    "refused.400": "The server does not take these values.",
    "refused.without": "This server wants a token.",
    "refused.401": "The server does not take this token.",
    "refused.403": "The token does not allow that.",
    "refused.503": "The server takes nobody more at the moment.",
    "refused": "The server refused.",
    "unreachable": "The server cannot be reached. Is it running, and is this page among its allowed_origins?",
    "timeout": "The server did not answer in time.",
    "replaced": "Somebody else has joined as {name} and has taken your place.",
    "removed": "An operator has removed you from the room.",
    "ended": "The server has ended the connection.",
    "failed": "That did not work.",

    "guide.title": "Try it in a minute",
    "guide.join": "Join: the values given will do.",
    "guide.share": "Open the channel's link in a second window.",
    "guide.talk": "Publish your camera and write in the chat: the other window sees it.",
    "guide.restart": "Stop the server and start it again: both windows come back by themselves.",
    "guide.media": "The room server carries no media. It says who is there, what they publish and where the media server is; the picture of your camera stays in this window.",
    "guide.address": "Server",
    "guide.library": "Client library",
    "guide.off": "Switch this page off",

    "room.who": "App {app} · you are {name}, {role}",
    "room.link": "Link to this channel",
    "room.copy": "Copy link",
    "room.second": "Second window",
    "room.leave": "Leave",

    "members.title": "Members",
    "members.empty": "Nobody else is here yet. Open a second window, or send the link to somebody.",
    "members.you": "you",
    "members.more": "and {n} more",
    "members.nothing": "publishes nothing",
    "role.normal": "normal",
    "role.recorder": "recorder",
    "role.relayer": "relayer",

    "chat.title": "Chat",
    "chat.text": "Message to the room",
    "chat.send": "Send",
    "chat.sending": "on its way",
    "chat.unsent": "not sent",
    "chat.unknown": "no answer: it may or may not have arrived",
    "chat.you": "You",
    "chat.join": "{name} has joined",
    "chat.leave": "{name} has left",
    "chat.publish": "{name} publishes {stream}",
    "chat.unpublish": "{name} no longer publishes {stream}",
    "chat.lost": "Connection lost. What you write now is sent when it is back; after a restart of the server perhaps to an empty room.",
    "chat.resumed": "Back again, nothing was lost.",
    "chat.rejoined": "Back again, as a newcomer: the server no longer knew this session. Messages may be missing.",
    "chat.entered": "You are in the room.",

    "stream.title": "Your stream",
    "stream.live": "published",
    "stream.preview": "Preview of your camera or screen",
    "stream.off": "No picture yet. Publishing turns it on.",
    "stream.none.note": "Without a picture: the stream is only announced.",
    "stream.sound": "Sound only.",
    "stream.starting": "Waiting for the browser's permission…",
    "stream.source": "Source",
    "stream.camera": "Camera",
    "stream.desktop": "Screen",
    "stream.none": "No picture",
    "stream.carries": "The stream has",
    "stream.video": "Video",
    "stream.audio": "Audio",
    "stream.look": "Preview",
    "stream.dark": "Stop preview",
    "stream.publish": "Publish",
    "stream.unpublish": "Unpublish",
    "stream.failed": "The stream could not be published.",
    "stream.unfailed": "The stream could not be taken back.",
    "stream.ended": "The source has ended, and so has the stream.",

    "camera.denied": "The browser may not use it. Allow it, or choose “No picture”.",
    "camera.missing": "There is none here. Choose another source, or choose “No picture”.",
    "camera.busy": "Another program is using it.",
    "camera.failed": "The browser gives no picture.",
    "camera.insecure": "Browsers give a camera only to pages of https or of localhost. Choose “No picture”.",
    "camera.nothing": "Choose video, audio or both.",

    "media.title": "Media server",
    "media.empty": "None that is healthy.",
    "media.protocol": "Protocol",
    "media.ask": "Ask",
    "media.copy": "Copy the {name} address",
    "media.failed": "No addresses for that protocol.",

    "error.event": "The server says {type}: {message}",

    "wire.title": "Messages",
    "wire.filter": "Filter the messages",
    "wire.filter.hint": "Filter: words, -without",
    "wire.kinds": "Show",
    "wire.requests": "Requests",
    "wire.answers": "Answers",
    "wire.events": "Events",
    "wire.connection": "Connection",
    "wire.request": "request",
    "wire.answer": "answer",
    "wire.event": "event",
    "wire.out": "sent",
    "wire.in": "received",
    "wire.enlarge": "Enlarge",
    "wire.reduce": "Reduce",
    "wire.reveal": "Show secrets",
    "wire.mask": "Hide secrets",
    "wire.copy": "Copy",
    "wire.copy.one": "Copy message",
    "wire.bytes": "{n} bytes",
    "wire.clear": "Clear",
    "wire.empty": "Every message between this page and the server appears here.",
    "wire.none": "No message passes the filter.",
    "wire.copied": "{n} lines copied",
    "wire.connecting": "connecting to {url}",
    "wire.connected": "connection open",
    "wire.lost": "{reason}; try {n} in {seconds} s",
    "wire.resumed": "connection open again, session resumed",
    "wire.rejoined": "connection open again, new session",
    "wire.left": "connection closed",
    "wire.ended": "the server ended the connection: {code} {message}",

    "copied": "Copied",
    "not.copied": "The browser does not let this page copy",
  },

  zh: {
    "state.idle": "未连接",
    "state.connecting": "正在连接",
    "state.joining": "正在加入",
    "state.joined": "已连接",
    "state.reconnecting": "正在重连",
    "state.resumed.at": "{time} 已恢复，无丢失",
    "state.rejoined.at": "{time} 重新加入",
    "state.attempt": "第 {n} 次尝试",
    "state.in": "{n} 秒后",

    "join.title": "加入频道",
    "join.app": "应用 (app)",
    "join.channel": "频道 (channel)",
    "join.endpoint": "端点 (endpoint)",
    "join.endpoint.hint": "你在房间里的名字。留空则由服务器生成。",
    "join.role": "角色 (role)",
    "join.token": "令牌 (token)",
    "join.token.hint": "仅当服务器配置了密钥时需要，可用 meeting-server gen-token 生成。",
    "join.enter": "加入",
    "join.entering": "正在加入…",
    "join.slow": "还没有连上，仍在尝试，请稍候。",
    "join.too.long": "{n} 字节，最多 128 字节",

    "refused.400": "服务器不接受这些值。",
    "refused.without": "此服务器需要令牌。",
    "refused.401": "服务器不接受此令牌。",
    "refused.403": "令牌不允许此操作。",
    "refused.503": "服务器暂时不接受更多成员。",
    "refused": "服务器拒绝了请求。",
    "unreachable": "无法连接服务器。它在运行吗？本页面的来源是否在 allowed_origins 中？",
    "timeout": "服务器没有及时应答。",
    "replaced": "另一个客户端以 {name} 的名字加入，取代了你的位置。",
    "removed": "管理员已将你移出房间。",
    "ended": "服务器结束了连接。",
    "failed": "操作失败。",

    "guide.title": "一分钟试用",
    "guide.join": "点击“加入”：默认值即可。",
    "guide.share": "在第二个窗口中打开频道链接。",
    "guide.talk": "发布摄像头，在聊天中发消息：另一个窗口会看到。",
    "guide.restart": "停止服务器再启动：两个窗口都会自动恢复。",
    "guide.media": "房间服务器不传输媒体。它只告知房间里有谁、发布了什么流，以及媒体服务器的地址；摄像头画面不会离开本窗口。",
    "guide.address": "服务器",
    "guide.library": "客户端库",
    "guide.off": "关闭此页面",

    "room.who": "应用 {app} · 你是 {name}，{role}",
    "room.link": "此频道的链接",
    "room.copy": "复制链接",
    "room.second": "第二个窗口",
    "room.leave": "离开",

    "members.title": "成员",
    "members.empty": "还没有其他人。打开第二个窗口，或把链接发给别人。",
    "members.you": "你",
    "members.more": "还有 {n} 人",
    "members.nothing": "未发布流",
    "role.normal": "普通",
    "role.recorder": "录像",
    "role.relayer": "转发",

    "chat.title": "聊天",
    "chat.text": "发送给房间的消息",
    "chat.send": "发送",
    "chat.sending": "发送中",
    "chat.unsent": "未发送",
    "chat.unknown": "没有应答：可能已送达，也可能没有",
    "chat.you": "你",
    "chat.join": "{name} 加入了房间",
    "chat.leave": "{name} 离开了房间",
    "chat.publish": "{name} 发布了流 {stream}",
    "chat.unpublish": "{name} 停止发布流 {stream}",
    "chat.lost": "连接已断开。现在写的消息会在恢复后发送；如果服务器重启过，那时房间里可能还没有别人。",
    "chat.resumed": "已恢复，没有丢失任何消息。",
    "chat.rejoined": "已回来，但服务器不再认识原会话：重新加入，可能缺少部分消息。",
    "chat.entered": "你已进入房间。",

    "stream.title": "你的流",
    "stream.live": "已发布",
    "stream.preview": "摄像头或屏幕预览",
    "stream.off": "还没有画面。发布时会自动打开。",
    "stream.none.note": "没有画面：仅声明这条流。",
    "stream.sound": "只有声音。",
    "stream.starting": "等待浏览器授权…",
    "stream.source": "来源",
    "stream.camera": "摄像头",
    "stream.desktop": "屏幕",
    "stream.none": "无画面",
    "stream.carries": "流包含",
    "stream.video": "视频",
    "stream.audio": "音频",
    "stream.look": "预览",
    "stream.dark": "停止预览",
    "stream.publish": "发布",
    "stream.unpublish": "取消发布",
    "stream.failed": "发布流失败。",
    "stream.unfailed": "取消发布失败。",
    "stream.ended": "来源已结束，流也随之结束。",

    "camera.denied": "浏览器未获得授权。请允许使用，或选择“无画面”。",
    "camera.missing": "没有找到设备。请选择其他来源，或选择“无画面”。",
    "camera.busy": "设备正被其他程序使用。",
    "camera.failed": "浏览器无法提供画面。",
    "camera.insecure": "浏览器只允许 https 或 localhost 页面使用摄像头。请选择“无画面”。",
    "camera.nothing": "请选择视频、音频或两者。",

    "media.title": "媒体服务器",
    "media.empty": "没有健康的媒体服务器。",
    "media.protocol": "协议",
    "media.ask": "查询",
    "media.copy": "复制 {name} 地址",
    "media.failed": "该协议没有可用地址。",

    "error.event": "服务器提示 {type}：{message}",

    "wire.title": "消息",
    "wire.filter": "筛选消息",
    "wire.filter.hint": "筛选：关键词，-排除",
    "wire.kinds": "显示",
    "wire.requests": "请求",
    "wire.answers": "应答",
    "wire.events": "事件",
    "wire.connection": "连接",
    "wire.request": "请求",
    "wire.answer": "应答",
    "wire.event": "事件",
    "wire.out": "发出",
    "wire.in": "收到",
    "wire.enlarge": "放大",
    "wire.reduce": "缩小",
    "wire.reveal": "显示敏感信息",
    "wire.mask": "隐藏敏感信息",
    "wire.copy": "复制",
    "wire.copy.one": "复制消息",
    "wire.bytes": "{n} 字节",
    "wire.clear": "清空",
    "wire.empty": "本页面与服务器之间的每条消息都会显示在这里。",
    "wire.none": "没有符合筛选条件的消息。",
    "wire.copied": "已复制 {n} 行",
    "wire.connecting": "正在连接 {url}",
    "wire.connected": "连接已建立",
    "wire.lost": "{reason}；{seconds} 秒后第 {n} 次尝试",
    "wire.resumed": "连接恢复，会话继续",
    "wire.rejoined": "连接恢复，新会话",
    "wire.left": "连接已关闭",
    "wire.ended": "服务器结束了连接：{code} {message}",

    "copied": "已复制",
    "not.copied": "浏览器不允许此页面复制",
  },
};

/** The tag of a language as HTML wants it. */
const TAG = { en: "en", zh: "zh-Hans" };

const listeners = new Set();
let language = "en";

/** The language as it is now: "en" or "zh". */
export const currentLanguage = () => language;

/** What is asked for in the URL, chosen before, or spoken by the browser, in this order. */
export function preferredLanguage() {
  const asked = new URLSearchParams(location.search).get("lang");
  const spoken = [asked, stored(), ...(navigator.languages ?? [])];
  for (const tag of spoken) {
    const short = tag?.toLowerCase().split("-")[0];
    // Every object inherits properties such as "constructor", and none of them is a language.
    if (Object.hasOwn(WORDS, short ?? "")) return short;
  }
  return "en";
}

function stored() {
  try {
    return localStorage.getItem("meeting-server.language");
  } catch {
    // A browser that keeps nothing for this page still shows it.
    return null;
  }
}

/** Says everything in this language from now on, what is said already too. */
export function setLanguage(to, keep = false) {
  language = to;
  document.documentElement.lang = TAG[to];
  if (keep) {
    try {
      localStorage.setItem("meeting-server.language", to);
    } catch {
      // Then it is chosen again next time.
    }
  }
  for (const place of document.querySelectorAll("[data-t]")) {
    place.textContent = words(place.dataset.t, JSON.parse(place.dataset.values ?? "{}"));
  }
  for (const [attribute, name] of [["aria-label", "tLabel"], ["placeholder", "tPlaceholder"]]) {
    for (const place of document.querySelectorAll(`[data-t-${name.slice(1).toLowerCase()}]`)) {
      place.setAttribute(attribute, words(place.dataset[name], JSON.parse(place.dataset.values ?? "{}")));
    }
  }
  for (const listener of listeners) listener(to);
}

/** To be called whenever the language changes. */
export const onLanguage = (listener) => listeners.add(listener);

/** These words with these values, in the language as it is now. */
export function words(key, values = {}) {
  if (!hasWords(key)) throw new Error(`no words for ${key}`);
  const text = WORDS[language][key] ?? WORDS.en[key];
  return text.replace(/\{(\w+)\}/g, (_, name) => isolated(values[name]));
}

/** Whether there are words for this key. */
export const hasWords = (key) => Object.hasOwn(WORDS.en, key);

/**
 * The characters that open or close a direction of text (LRE, RLE, PDF, LRO, RLO, LRI, RLI, FSI,
 * PDI) and those that end a line or a paragraph, which closes every isolation.
 */
const DIRECTION_CONTROLS = /[\u202a-\u202e\u2066-\u2069\u2028\u2029]/g;

/** A text of another member, with a mark for each character that would escape its isolation. */
export const harmless = (text) => text.replace(DIRECTION_CONTROLS, "\ufffd");

/** The same between Unicode's FSI and PDI, so that it does not reorder the text around it. */
export function isolated(value) {
  return typeof value === "string" ? `\u2068${harmless(value)}\u2069` : String(value);
}

/** Puts words into an element, there to be said anew in another language; none where there is no key. */
export function say(place, key, values = {}) {
  if (key === undefined) {
    delete place.dataset.t;
    delete place.dataset.values;
    place.textContent = "";
    return;
  }
  place.dataset.t = key;
  place.dataset.values = JSON.stringify(values);
  const text = words(key, values);
  // What is said already is not said again by a screen reader.
  if (place.textContent !== text) place.textContent = text;
}

/** The keys of each language, so that a test can compare them. */
export const keysOf = () => Object.fromEntries(Object.entries(WORDS).map(([tag, list]) => [tag, Object.keys(list)]));
