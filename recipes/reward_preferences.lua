-- Fine-tune a CLIP reward on preference pairs: Bradley-Terry on differences of scores. Without `pairs` the pairs are
-- composed from the emoji data: one subject in two styles, of which one is preferred. The result is a folder that
-- syz.reward.clip loads.
local syz = require "syz"
local opt = syz.options {
  reward = { "examples/emoji/reward", "the CLIP reward to start from" },
  pairs = { "", "preference pairs: a folder with pairs.jsonl, or a .tar (docs/recipes.md)" },
  data = { "examples/emoji/data/emoji64-train.tar", "labelled images to compose pairs from, when `pairs` is empty" },
  test = { "examples/emoji/data/emoji64-test.tar", "held-out images, likewise" },
  preferred = { { "fluent-3d" }, "styles preferred in composed pairs" },
  over = { { "fluent-flat", "twemoji" }, "styles they are preferred to" },
  held_out = { 0.1, "share of `pairs` held out, by prompt", function(x) return x > 0 and x < 1, "not in (0,1)" end },
  steps = { 150, "optimizer steps" }, batch = { 24, "pairs per step" }, lr = { 5e-5, "AdamW learning rate" },
  contrast = { 1, "weight of telling the batch's prompts apart, which keeps the reward to the prompt" },
  save = { "", "folder that receives the reward; RUN/reward unless given" }, seed = { 42, "random seed" },
}

local reward = syz.reward.clip(opt.reward)
local logit_scale = reward.model:param("logit_scale")

local train, test
if opt.pairs ~= "" then
  local all = syz.preferences.read(opt.pairs, { size = reward.config.vision_config.image_size })
  train, test = all:split(opt.held_out)
else
  local function compose(path)
    local styles = { preferred = opt.preferred, over = opt.over, seed = opt.seed }
    return syz.preferences.compose(syz.data.images(path), styles)
  end
  train, test = compose(opt.data), compose(opt.test)
end

-- Scores that gradients reach both towers through; reward:score would take cached texts.
local function score(images, prompts)
  return (reward:image(images) * reward:encode(prompts)):sum({ 1 })
end

-- InfoNCE of the batch's first images and prompts; a prompt that occurs twice counts as right in both places.
local function contrast(images, prompts)
  local same = {}
  for i, one in ipairs(prompts) do
    for j, other in ipairs(prompts) do same[(i - 1) * #prompts + j] = one == other and 1 or 0 end
  end
  local target = syz.tensor(same, { #prompts, #prompts })
  local logits = reward:image(images):matmul(reward:encode(prompts), false, true) * logit_scale:exp()
  return -(target / target:sum({ 1 }, true) * logits:log_softmax(-1)):sum() / #prompts
end

local batches = syz.data.epochs(train:count(), opt.batch, opt.seed)
local function loss(step)
  local places = batches(step)
  local preference = train:loss(score, places, logit_scale:exp())
  local stats = { preference = preference:item() }
  if opt.contrast == 0 then return preference, stats end
  local first, _, prompts = train:batch(places)
  return preference + opt.contrast * contrast(first, prompts), stats
end

local function measure()
  local accuracy, value = test:evaluate(score, math.exp(logit_scale:item()))
  return { pair_accuracy = accuracy, pair_loss = value, prompt_accuracy = test:prompt_accuracy(score) }
end

local before = measure()
return syz.fit {
  label = "reward preferences", modules = { reward = reward.model }, loss = loss, steps = opt.steps, seed = opt.seed,
  optimizer = syz.adamw { lr = opt.lr, weight_decay = 0.01, clip = 1, schedule = syz.optim.cosine { warmup = 10 } },
  evaluate = measure, evaluate_every = 50, checkpoint_every = 50, log_every = 1,
  finish = function(run)
    local after, summary = measure(), { pairs = train:count(), held_out_pairs = test:count() }
    for name, value in pairs(after) do summary[name] = { before = before[name], after = value } end
    reward:save(opt.save ~= "" and opt.save or run.folder .. "/reward")
    run:summary(summary)
  end,
}
