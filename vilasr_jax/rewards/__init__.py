"""Rewards: accuracy, format and drawing, by name, and the rule that adds them up."""

from vilasr_jax.rewards import parts as parts
from vilasr_jax.rewards.job_reward import JobReward as JobReward
from vilasr_jax.rewards.parse_answer import mean_relative_accuracy as mean_relative_accuracy
from vilasr_jax.rewards.parse_answer import option_letter as option_letter
from vilasr_jax.rewards.parse_answer import read_number as read_number
from vilasr_jax.rewards.parts import check_answer as check_answer
from vilasr_jax.rewards.registry import Finished as Finished
from vilasr_jax.rewards.registry import get_reward as get_reward
from vilasr_jax.rewards.registry import register as register
from vilasr_jax.rewards.registry import reward_names as reward_names
from vilasr_jax.rewards.rule import RewardSettings as RewardSettings
from vilasr_jax.rewards.rule import score as score
