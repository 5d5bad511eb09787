--- The table at the end of check.sh, and the same as a page.
--
--   luajit tests/gpu/table.lua FOLDER COMMAND
--
-- Reads what the parts left in FOLDER: ours.jsonl, eager.jsonl and compiled.jsonl (lines of bench.lua and peer.py) and
-- correctness.tsv (verdict, what, detail). Prints the table and writes FOLDER/gpu-CARD.md. Fails when a line of
-- correctness is not a PASS. Needs LUA_PATH and LUA_CPATH as check.sh sets them.
local core = require "syz.core"
local cuda = require "syz.cuda"
local text = require "syz.text"

local folder, command = arg[1], arg[2]
local TERA, GIGA, GIBI = 1e12, 1e9, 2 ^ 30

-- The targets of an iteration and of a full fine-tune.
local LEAST_RATE, LEAST_RATIO, MOST_MEMORY = 600, 1.35, 139

local function titles(part, size)
  local kind, side = part:match("^(.-)/(%d+)$")
  kind, side = kind or part, side and (", %s²"):format(side) or ""
  local known = {
    product = ("matrix product, %d³"):format(size.product),
    copy = ("copy of %s"):format(text.bytes(size.copied * (size.full and 2 or 4))),
    forward = "transformer forward", inputs = "transformer forward and backward, frozen",
    weights = "transformer forward and backward, trained", vae = "VAE decoder forward and backward",
    reward = "reward tower forward and backward",
    iteration = ("iteration (%d steps, two branches), trained"):format(size.rollout),
    ["frozen-iteration"] = ("iteration (%d steps, two branches), frozen"):format(size.rollout),
    optimizer = "clip and optimizer step", ["fine-tune"] = "iteration and optimizer step",
  }
  return (known[kind] or kind) .. side
end

-- The order of rows; parts that nobody finished are rows too.
local function parts_of(size)
  local list, at = { "product", "copy" }, "/" .. size.iteration
  for _, side in ipairs(size.sides) do
    for _, kind in ipairs { "forward/", "inputs/", "weights/" } do list[#list + 1] = kind .. side end
  end
  for _, name in ipairs { "vae" .. at, "reward", "frozen-iteration" .. at, "iteration" .. at, "optimizer" .. at,
                          "fine-tune" .. at } do
    list[#list + 1] = name
  end
  return list
end

-- What a side measured: { about =, [part] = line }; nil when it did not run. Lines that are no JSON are the libraries'.
local function read(name)
  local path = folder .. "/" .. name .. ".jsonl"
  if core.file.exists(path) ~= "file" then return nil end
  local found = {}
  for line in core.file.read(path):gmatch("[^\n]+") do
    local ok, row = pcall(core.json.decode, line)
    if ok and type(row) == "table" then
      if row.about then found.about = row.about elseif row.part then found[row.part] = row end
    end
  end
  return found.about and found or nil
end

-- The measured rates of the card: the better of ours and PyTorch's.
local function ceilings(sides)
  local product, copy
  for _, side in ipairs { "ours", "eager", "compiled" } do
    local found = sides[side] or {}
    local ours = sides.ours and sides.ours.product
    if found.product and found.product.ms and ours and ours.flops then
      product = math.max(product or 0, ours.flops / found.product.ms * 1e3)
    end
    if found.copy and found.copy.ms then copy = math.max(copy or 0, found.copy.bytes / found.copy.ms * 1e3) end
  end
  return product, copy
end

-- What PyTorch is not asked for.
local OURS_ALONE = { ["fine-tune"] = true }

local function milliseconds(side, part, peer)
  if peer and OURS_ALONE[part:match("^[^/]+")] then return "–" end
  if not side then return peer and "skipped" or "not finished" end
  local row = side[part]
  if not row then return peer and part:match("^frozen%-") and side[part:sub(8)] and "–" or "not finished" end
  if row.failed then return row.failed:lower():find("memory", 1, true) and "no memory" or "failed" end
  return ("%.4g"):format(row.ms)
end

local function ratio(other, ours)
  return other and other.ms and ours and ours.ms and other.ms / ours.ms or nil
end

local function row_of(sides, part, size, product, copy)
  local ours = sides.ours and sides.ours[part]
  local rate, share = "", ""
  if ours and ours.ms and ours.bytes then
    local found = ours.bytes / ours.ms * 1e3
    rate, share = ("%.0f GB/s"):format(found / GIGA), copy and ("%.0f %%"):format(100 * found / copy) or ""
  elseif ours and ours.ms and ours.flops then
    local found = ours.flops / ours.ms * 1e3
    rate, share = ("%.3g TF/s"):format(found / TERA), product and ("%.0f %%"):format(100 * found / product) or ""
  end
  local function times(side)
    local found = ratio(sides[side] and sides[side][part], ours)
    return found and ("%.2f"):format(found) or ""
  end
  return { titles(part, size), milliseconds(sides.ours, part), milliseconds(sides.eager, part, true),
    milliseconds(sides.compiled, part, true), times "eager", times "compiled", rate, share,
    ours and ours.peak and ("%.1f"):format(ours.peak / GIBI) or "" }
end

-- ---- verdicts ----

local function correctness()
  local list, good = {}, true
  local path = folder .. "/correctness.tsv"
  for line in (core.file.exists(path) == "file" and core.file.read(path) or ""):gmatch("[^\n]+") do
    local verdict, what, detail = line:match("^(.-)\t(.-)\t(.*)$")
    list[#list + 1] = { verdict, what, detail }
    good = good and verdict == "PASS"
  end
  if #list == 0 then list[1], good = { "not finished", "correctness", "no part of it left a result" }, false end
  return list, good
end

local function verdict(value, good, said)
  return value and (good and "PASS" or "FAIL") or "not measured", said
end

local function targets(sides, size)
  if not size.full then return { { "not measured", "the three targets", "at full size, on a GPU" } } end
  local ours, at = sides.ours or {}, "/" .. size.iteration
  local whole, frozen = ours["iteration" .. at], ours["frozen-iteration" .. at]
  local part = whole and whole.ms and "iteration" or frozen and frozen.ms and "frozen-iteration"
  local row = part and ours[part .. at]
  local note = part == "frozen-iteration" and ", frozen: gradients of all weights do not fit" or ""
  local rate = row and row.flops and row.flops / row.ms * 1e3 / TERA
  local times = row and ratio(sides.compiled and sides.compiled[part .. at], row)
  local tune = ours["fine-tune" .. at]
  local memory = tune and tune.ms and tune.peak / GIBI
  local function line(what, value, good, form)
    local found, said = verdict(value, good, value and form:format(value) or "")
    return { found, what, said }
  end
  return {
    line(("at least %d TF/s over an iteration"):format(LEAST_RATE), rate, rate and rate >= LEAST_RATE,
      "%.0f TF/s" .. note),
    line(("at least %.2f times compiled PyTorch"):format(LEAST_RATIO), times, times and times >= LEAST_RATIO,
      "%.2f times" .. note),
    line(("a full fine-tune in at most %d GiB"):format(MOST_MEMORY), memory, memory and memory <= MOST_MEMORY,
      "%.1f GiB"),
  }
end

-- ---- what is printed ----

local HEAD = { "what", "ours, ms", "PyTorch eager", "compiled", "eager / ours", "compiled / ours", "rate",
               "of the card's", "peak, GiB" }

local function machine(sides)
  local about, lines = sides.ours and sides.ours.about or {}, {}
  local function add(name, value) if value then lines[#lines + 1] = ("%s %s"):format(name, value) end end
  add("card", about.card)
  add("Syzygy", about.version)
  add("driver for CUDA", about.driver and cuda.version(about.driver))
  add("CUDA", about.runtime and cuda.version(about.runtime))
  add("cuDNN", about.cudnn and cuda.library_version(about.cudnn))
  for _, side in ipairs { "eager", "compiled" } do
    local other = sides[side]
    local cudnn = other and type(other.about.cudnn) == "number"
      and ", cuDNN " .. cuda.library_version(other.about.cudnn) or ""
    add("PyTorch " .. side, other and other.about.version .. cudnn or "did not run")
  end
  return lines
end

local function failures(sides)
  local lines = {}
  for _, side in ipairs { "ours", "eager", "compiled" } do
    for part, row in pairs(sides[side] or {}) do
      if row.failed then lines[#lines + 1] = ("%s, %s: %s"):format(side, part, row.failed) end
    end
  end
  table.sort(lines)
  return lines
end

local function markdown(rows) -- the first is the head
  local lines = {}
  for i, row in ipairs(rows) do
    lines[#lines + 1] = "| " .. table.concat(row, " | ") .. " |"
    if i == 1 then lines[#lines + 1] = "|" .. ("---|"):rep(#row) end
  end
  return table.concat(lines, "\n")
end

local function page(card, size, sides, rows, verdicts)
  local list = { ("# On %s"):format(card), ("Measured on %s by"):format(os.date("!%Y-%m-%d")), "    " .. command,
    table.concat(machine(sides), "; ") .. ".",
    size.full and "" or "**Tiny models: this shows that the programs work, and nothing about speed.**",
    [[Random weights at published size, batch 1, bf16. A figure is the median of repetitions after a warm-up; "frozen"
takes gradients of inputs alone, "trained" of all weights. The rate of a row is what it did (operations that the engine
counted, or bytes that must move) over its time; its share is of the matrix product's or the copy's rate on the same
card in the same run, ours or PyTorch's, whichever is higher. PyTorch's optimizer keeps bf16 weights and moments, which
is less work than an exact f32 master.]],
    markdown(rows) }
  local head = { { "verdict", "what", "" } }
  for _, row in ipairs(verdicts) do head[#head + 1] = row end
  list[#list + 1] = markdown(head)
  local failed = failures(sides)
  if #failed > 0 then list[#list + 1] = "What failed:\n\n- " .. table.concat(failed, "\n- ") end
  return (table.concat(list, "\n\n") .. "\n"):gsub("\n\n\n+", "\n\n")
end

local function main()
  local sides = { ours = read "ours", eager = read "eager", compiled = read "compiled" }
  local name = sides.ours and sides.ours.about.size or "full"
  local size = core.json.decode(core.file.read "tests/gpu/sizes.json")[name]
  size.full = name == "full"
  local product, copy = ceilings(sides)
  local rows = { HEAD }
  for _, part in ipairs(parts_of(size)) do rows[#rows + 1] = row_of(sides, part, size, product, copy) end
  local verdicts, good = correctness()
  for _, row in ipairs(targets(sides, size)) do verdicts[#verdicts + 1] = row end
  local card = sides.ours and sides.ours.about.card or "no card"
  local slug = card:lower():gsub("nvidia%s*", ""):gsub("[^%w]+", "-"):gsub("^%-+", ""):gsub("%-+$", "")
  local path = ("%s/%s-%s.md"):format(folder, size.full and "gpu" or "tiny", slug)
  core.file.write(path, page(card, size, sides, rows, verdicts))
  io.stdout:write("\n", text.columns(rows, 0), "\n", text.columns(verdicts, 0), "\n")
  for _, line in ipairs(failures(sides)) do io.stdout:write("failed: ", line, "\n") end
  io.stdout:write(table.concat(machine(sides), "; "), "\npage: ", path, "\n")
  return good
end

os.exit(main() and 0 or 1)
