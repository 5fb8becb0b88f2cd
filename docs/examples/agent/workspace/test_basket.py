import unittest

from basket import free_shipping, total


class Basket(unittest.TestCase):
    def test_sum(self):
        self.assertEqual(total([100, 250]), 350)

    def test_discount(self):
        self.assertEqual(total([1000], discount_percent=10), 900)

    def test_shipping_at_the_border(self):
        self.assertTrue(free_shipping(5000))

    def test_shipping_below(self):
        self.assertFalse(free_shipping(4999))
