--- The independent judge: a convolutional classifier with two heads, style and subject, that no method optimises.
--- Another architecture than the reward (convolutions, not a transformer; classes, not text), another seed.
local core = require "syz.core"
local files = require "syz.files"
local identity = require "syz.identity"
local nearest = require "syz.nearest"
local nn = require "syz.nn"

local M = {}

---@class syz.Judge
---@field styles string[]
---@field subjects string[]
local Judge = {}
Judge.__index = Judge

local WIDTHS = { 32, 64, 128, 256 }
local GROUPS = 8

local function build(styles, subjects, seed)
  local spec, from = {}, 3
  for level, width in ipairs(WIDTHS) do
    for layer = 1, level == #WIDTHS and 1 or 2 do
      local name = ("conv%d_%d"):format(level, layer)
      spec[#spec + 1] = { name .. ".weight", { width, from, 3, 3 }, "linear" }
      spec[#spec + 1] = { name .. ".norm.weight", { width }, "ones" }
      spec[#spec + 1] = { name .. ".norm.bias", { width }, "zeros" }
      from = width
    end
  end
  for head, classes in pairs { style = #styles, subject = #subjects } do
    spec[#spec + 1] = { head .. ".weight", { classes, from }, "linear" }
    spec[#spec + 1] = { head .. ".bias", { classes }, "zeros" }
  end
  table.sort(spec, function(a, b) return a[1] < b[1] end)
  return nn.module(spec, seed)
end

local function index_of(list)
  local map = {}
  for i, name in ipairs(list) do map[name] = i - 1 end
  return map
end

--- A fresh judge for these class names.
---@param styles string[]
---@param subjects string[]
---@param seed integer
---@return syz.Judge
function M.new(styles, subjects, seed)
  return setmetatable({
    styles = styles, subjects = subjects, module = build(styles, subjects, seed),
    style_index = index_of(styles), subject_index = index_of(subjects),
  }, Judge)
end

--- Load from a folder written by :save().
---@param folder string
---@return syz.Judge
function M.load(folder)
  if type(folder) ~= "string" then error("syz.judge needs the name of a folder, not a " .. type(folder), 2) end
  local names = files.need_json(folder .. "/config.json")
  if type(names.styles) ~= "table" or type(names.subjects) ~= "table" then
    error(folder .. '/config.json: a judge\'s has lists of "styles" and "subjects"', 0)
  end
  identity.note("judge", folder)
  local self = M.new(names.styles, names.subjects, 0)
  self.module:restore(folder)
  return self
end

--- Move to a device; the judge computes in f32 everywhere.
---@param where string
function Judge:to(where)
  self.module:to(where)
  return self
end

function Judge:save(folder)
  self.module:save(folder)
  core.file.write(folder .. "/config.json", core.json.encode({ styles = self.styles, subjects = self.subjects }, true))
end

--- Features [N,256] of images [N,H,W,3] in [0, 1].
function Judge:features(images)
  local x, store = images * 2 - 1, self.module.store
  for level = 1, #WIDTHS do
    for layer = 1, level == #WIDTHS and 1 or 2 do
      local name = ("conv%d_%d"):format(level, layer)
      x = x:conv2d(store[name .. ".weight"], nil, layer == 1 and 2 or 1, 1, 1, 1, 1)
      x = x:group_norm(store[name .. ".norm.weight"], store[name .. ".norm.bias"], GROUPS, 1e-5, true)
    end
  end
  return x:mean({ 1, 2 })
end

--- Logits {style = [N,styles], subject = [N,subjects]} and the features.
function Judge:logits(images)
  local store, features = self.module.store, self:features(images)
  return {
    style = features:linear(store["style.weight"], store["style.bias"]),
    subject = features:linear(store["subject.weight"], store["subject.bias"]),
  }, features
end

local CHUNK = 64

-- Distance of every image to every other: the mean over all pairs, the mean over pairs of one subject (nil without
-- such), and per image a number whose mean is the former. As each pair counts for two images, an image's own deviation
-- is doubled (the first-order pseudo-value of a mean over pairs), so that their spread tells the standard error.
local function distances(unit, subjects)
  local n = #subjects
  local gram = unit:matmul(unit, false, true):totable()
  local total, within, pairs_within, own = 0, 0, 0, {}
  for i = 1, n do
    own[i] = 0
    for j = 1, n do
      if i ~= j then
        local d = math.sqrt(math.max(0, 2 - 2 * gram[(i - 1) * n + j]))
        own[i] = own[i] + d / math.max(1, n - 1)
        if subjects[i] == subjects[j] then within, pairs_within = within + d, pairs_within + 1 end
      end
    end
    total = total + own[i]
  end
  local mean = total / n
  for i = 1, n do own[i] = mean + 2 * (own[i] - mean) end
  return mean, pairs_within > 0 and within / pairs_within or nil, own
end

--- What an evaluation asks of images drawn for known subjects: mean probability of `style`, share whose subject is
--- recognised (top-1; nil when the judge knows none of them), and the mean pairwise distance of unit features.
---@param images syz.Tensor
---@param subjects string[]  the subject of each image's prompt
---@param style string
---@return { style_probability: number, subject_accuracy: number|nil, diversity: number,
---  diversity_per_subject: number|nil, each: { style: number[], subject: number[], diversity: number[] } }
---  each: what the means are made of, per image (subject: per image whose subject is known)
function Judge:assess(images, subjects, style)
  local column = self.style_index[style]
  if not column then error(("the judge knows no style %q%s"):format(style, nearest.hint(style, self.styles)), 2) end
  return core.no_grad(core.scope, function()
    local each, units, total, hits = { style = {}, subject = {} }, {}, 0, 0
    for first = 1, #subjects, CHUNK do
      local logits, features = self:logits(images:slice(0, first - 1, math.min(first + CHUNK - 1, #subjects)))
      local probability, top = logits.style:softmax(-1):totable(), logits.subject:argmax(-1):totable()
      for i = 1, #top do
        local p = probability[(i - 1) * #self.styles + column + 1]
        local wanted = self.subject_index[subjects[first + i - 1]]
        total, each.style[#each.style + 1] = total + p, p
        if wanted then
          local hit = top[i] == wanted and 1 or 0
          hits, each.subject[#each.subject + 1] = hits + hit, hit
        end
      end
      units[#units + 1] = features:normalize(1e-8)
    end
    local diversity, within
    diversity, within, each.diversity = distances(core.ops.concat(units, 0), subjects)
    return {
      style_probability = total / #subjects, subject_accuracy = #each.subject > 0 and hits / #each.subject or nil,
      diversity = diversity, diversity_per_subject = within, each = each,
    }
  end)
end

return M
