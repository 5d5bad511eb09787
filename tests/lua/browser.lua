--- A headless Chromium driven over its DevTools protocol, for specs that look at a page as a person would.
--
-- The protocol runs over --remote-debugging-pipe: JSON messages that end with a zero byte, through two FIFOs, so no
-- library for sockets is needed. `timeout` ends a browser that hangs, which ends every read here.
local core = require "syz.core"

local browser = {}
local Browser = {}
Browser.__index = Browser

local seconds = 300

--- The program to run, or nil where there is none.
function browser.program()
  for _, name in ipairs { "chromium", "chromium-browser", "google-chrome", "google-chrome-stable" } do
    if os.execute("command -v " .. name .. " >/dev/null 2>&1") == 0 then return name end
  end
end

--- Start a browser whose profile and downloads are in `folder`.
function browser.start(program, folder)
  core.file.mkdir(folder .. "/downloads")
  assert(os.execute(("mkfifo '%s/in' '%s/out'"):format(folder, folder)) == 0)
  -- the sandbox needs user namespaces, which containers lack, and the only page that is opened here is ours
  local flags = "--headless=new --disable-gpu --no-first-run --disable-dev-shm-usage --hide-scrollbars --no-sandbox"
  os.execute(("(timeout -k 5 %d %s %s --remote-debugging-pipe --user-data-dir='%s/profile' about:blank"
    .. " 3<'%s/in' 4>'%s/out' >'%s/log' 2>&1 &)"):format(seconds, program, flags, folder, folder, folder, folder))
  local self = setmetatable({ folder = folder, last = 0 }, Browser)
  self.to = assert(io.open(folder .. "/in", "w"))
  self.from = assert(io.open(folder .. "/out", "r"))
  self:open()
  return self
end

local function receive(file)
  local parts = {}
  while true do
    local c = file:read(1)
    if not c then error("the browser has gone", 0) end
    if c == "\0" then return assert(core.json.decode(table.concat(parts))) end
    parts[#parts + 1] = c
  end
end

--- Send a command and wait for its answer; events in between are kept.
function Browser:call(method, parameters)
  self.last = self.last + 1
  local message = { id = self.last, method = method, sessionId = self.session }
  if parameters and next(parameters) ~= nil then message.params = parameters end
  self.to:write(core.json.encode(message), "\0")
  self.to:flush()
  while true do
    local answer = receive(self.from)
    if answer.id == self.last then
      if answer.error then error(method .. ": " .. tostring(answer.error.message), 2) end
      return answer.result
    end
    self:on_event(answer)
  end
end

function Browser:on_event(event)
  if event.method == "Runtime.exceptionThrown" then
    local details = event.params.exceptionDetails
    table.insert(self.errors, details.exception and details.exception.description or details.text)
  elseif event.method == "Log.entryAdded" and event.params.entry.level == "error" then
    table.insert(self.errors, event.params.entry.text)
  elseif event.method == "Network.requestWillBeSent" then
    local url = event.params.request.url
    if not url:match("^data:") and not url:match("^file:") and not url:match("^blob:") then
      table.insert(self.requests, url)
    end
  end
end

--- A new page in place of the one before.
function Browser:open()
  self.session, self.errors, self.requests = nil, {}, {}
  local target = self:call("Target.createTarget", { url = "about:blank" }).targetId
  self.session = self:call("Target.attachToTarget", { targetId = target, flatten = true }).sessionId
  for _, domain in ipairs { "Page", "Runtime", "Log", "Network" } do self:call(domain .. ".enable") end
  self:call("Browser.setDownloadBehavior", { behavior = "allow", downloadPath = self.folder .. "/downloads" })
  self:size(1280, 800)
end

--- The window in CSS pixels; `phone` also turns touch on.
function Browser:size(width, height, phone)
  phone = phone and true or false
  self:call("Emulation.setDeviceMetricsOverride",
    { width = width, height = height, deviceScaleFactor = phone and 2 or 1, mobile = phone })
  self:call("Emulation.setTouchEmulationEnabled", { enabled = phone })
end

--- Whether the page is asked for light or dark colours.
function Browser:scheme(name)
  self:call("Emulation.setEmulatedMedia", { features = { { name = "prefers-color-scheme", value = name } } })
end

--- Wait until a JavaScript expression is true.
function Browser:await(expression, what)
  local start = core.clock()
  while core.clock() - start < 15 do
    local ok, value = pcall(self.value, self, expression)
    if ok and value == true then return end
    os.execute "sleep 0.05"
  end
  error("waited in vain for " .. (what or expression), 2)
end

--- Load a file from disk, anew if it is there already.
function Browser:load(path)
  self:value "window.before = true"
  self:call("Page.navigate", { url = "file://" .. path })
  self:await("!window.before && document.readyState === 'complete'", "the page to load")
end

--- What a JavaScript expression gives.
function Browser:value(expression)
  local answer = self:call("Runtime.evaluate", { expression = expression, returnByValue = true })
  if answer.exceptionDetails then
    error(expression .. ": " .. tostring((answer.exceptionDetails.exception or {}).description), 2)
  end
  return answer.result.value
end

local codes = { ArrowLeft = 37, ArrowUp = 38, ArrowRight = 39, ArrowDown = 40, Enter = 13, Tab = 9, Escape = 27,
                [" "] = 32 }

--- Press and release a key, as the keyboard would: "1", "ArrowLeft", "Tab", ...
function Browser:press(key, modifiers)
  local printable = #key == 1 or key == "Enter"
  local event = { key = key, modifiers = modifiers or 0, windowsVirtualKeyCode = codes[key] or key:upper():byte(),
                  type = printable and "keyDown" or "rawKeyDown", text = printable and (key == "Enter" and "\r" or key)
                  or nil }
  self:call("Input.dispatchKeyEvent", event)
  event.type, event.text = "keyUp", nil
  self:call("Input.dispatchKeyEvent", event)
end

--- Type a text into what has the focus.
function Browser:type(content)
  self:call("Input.insertText", { text = content })
end

-- The middle of an element, scrolled into view first: where a person would point.
function Browser:middle(selector)
  local at = self:value(([[(() => {
    const e = document.querySelector(%s);
    if (!e) return null;
    e.scrollIntoView({ block: "nearest" });
    const r = e.getBoundingClientRect();
    return { x: r.left + r.width / 2, y: r.top + r.height / 2 };
  })()]]):format(core.json.encode { selector }:match("^%[(.*)%]$")))
  return assert(type(at) == "table" and at, "the page has no " .. selector)
end

--- Click the middle of an element with the mouse.
function Browser:click(selector)
  local at = self:middle(selector)
  for _, kind in ipairs { "mousePressed", "mouseReleased" } do
    self:call("Input.dispatchMouseEvent", { type = kind, x = at.x, y = at.y, button = "left", clickCount = 1 })
  end
end

--- Tap it with a finger.
function Browser:tap(selector)
  local at = self:middle(selector)
  self:call("Input.dispatchTouchEvent", { type = "touchStart", touchPoints = core.array { at } })
  self:call("Input.dispatchTouchEvent", { type = "touchEnd", touchPoints = core.array {} })
end

--- The text of a downloaded file, once it is there.
function Browser:downloaded(name)
  local path, start = self.folder .. "/downloads/" .. name, core.clock()
  while core.clock() - start < 15 do
    if core.file.exists(path) then return assert(core.file.read(path)), path end
    os.execute "sleep 0.05"
  end
  error("nothing was downloaded as " .. name, 2)
end

--- Save what the window shows as a PNG.
function Browser:screenshot(path)
  local picture = self:call("Page.captureScreenshot", { format = "png" }).data
  local file = assert(io.popen(("base64 -d > '%s'"):format(path), "w"))
  file:write(picture)
  file:close()
end

--- End the browser and wait until it has gone: until then it writes into its folder.
function Browser:stop()
  pcall(self.call, self, "Browser.close")
  self.to:close()
  while self.from:read(1) do end
  self.from:close()
end

return browser
